"""The embedded stack as a whole: up, down, status."""

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

from pydantic import BaseModel

from stock_pipeline.database import init_db
from stock_pipeline.errors import AlreadyRunning, SettingsError
from stock_pipeline.ingest.topics import ensure_topics
from stock_pipeline.local.component import Component
from stock_pipeline.local.kafka import Kafka
from stock_pipeline.local.timescaledb import TimescaleDB
from stock_pipeline.services.lock import hold, is_held
from stock_pipeline.services.processes import ProcessRecord
from stock_pipeline.services.service import Heartbeat, ServiceName, lock_path, record_path, run_folder
from stock_pipeline.services.supervisor import living_process
from stock_pipeline.settings import Settings

RUN = "run"
"""Name of the process that keeps everything running in the foreground."""

RUN_PROCESSES = ("grafana", "webserver", "daemon", "code-server")
"""What it keeps running beside the services: Dagster's parts and, where there is one, Grafana."""

STATUS_PATIENCE = 20.0
"""A service whose heartbeat is older than this many seconds is shown as silent."""


class Status(BaseModel):
    """One line of `stock-pipeline status`."""

    name: str
    state: str
    address: str = ""
    version: str = ""
    pid: int | None = None


def components(settings: Settings) -> Sequence[Component]:
    return TimescaleDB(settings), Kafka(settings)


def check_is_embedded(settings: Settings) -> None:
    if settings.stack != "embedded":
        raise SettingsError(
            f"stack is {settings.stack}: Kafka and TimescaleDB are started by others; set STACK=embedded to start them "
            "here"
        )
    if settings.kafka_security_protocol != "PLAINTEXT":
        raise SettingsError(
            f"kafka_security_protocol is {settings.kafka_security_protocol}: the embedded broker speaks PLAINTEXT; set "
            "STACK=external for a broker of yours"
        )


def up(settings: Settings) -> dict[str, bool]:
    """Start Kafka and TimescaleDB at once, wait for both, and create topics and tables.

    Returns:
        For each component whether it was started; false: it was up already.
    """
    # Spark is a large import, which the other commands do without.
    from spark.class_archive import ensure_class_archive

    check_is_embedded(settings)
    ensure_class_archive()
    with hold(lock_path(settings, "stack"), patience=120), ThreadPoolExecutor() as pool:
        parts = components(settings)
        started = [pool.submit(part.start) for part in parts]
        result = {part.name: future.result() for part, future in zip(parts, started, strict=True)}
        create_topics_and_tables(settings)
    return result


def create_topics_and_tables(settings: Settings) -> None:
    """Create at once, in servers that run, what is missing there."""
    with ThreadPoolExecutor() as pool:
        tables = pool.submit(init_db, settings)
        ensure_topics(settings)
        tables.result()


def down(settings: Settings, wipe: bool = False, keep_run: bool = False) -> list[str]:
    """Stop `run`, the services and the stack, in this order; gives the names of what was running.

    Args:
        wipe: delete home: the database, the topics, the checkpoints, the passwords.
        keep_run: `run` itself is the caller.
    """
    stopped = []
    for name in dict.fromkeys((RUN, *reversed(RUN_PROCESSES), *_services(settings))):
        record = living_process(settings, name)
        if record is not None and not (keep_run and name == RUN):
            record.terminate(patience=60)
            stopped.append(name)
    with hold(lock_path(settings, "stack"), patience=120):
        stopped += [part.name for part in components(settings) if part.stop()]
    if wipe:
        if is_held(lock_path(settings, RUN)):
            raise AlreadyRunning(f"{settings.home} is in use by `stock-pipeline run`: stop it first")
        shutil.rmtree(settings.home, ignore_errors=True)
    return stopped


def status(settings: Settings) -> Iterator[Status]:
    """State of every part: the embedded stack, Dagster's processes and Grafana, the services."""
    for part in components(settings) if settings.stack == "embedded" else ():
        record = part.record()
        state = "stopped" if record is None else "healthy" if part.is_healthy() else "unhealthy"
        yield _status(part.name, state, record)
    for name in (RUN, *RUN_PROCESSES):
        record = ProcessRecord.read(record_path(settings, name))
        alive = record is not None and record.is_alive()
        yield _status(name, "running" if alive else "stopped", record if alive else None)
    for service in _services(settings):
        beat = Heartbeat.read(record_path(settings, service))
        if beat is None or not beat.is_alive():
            yield _status(service, "stopped", None)
        else:
            age = time.time() - beat.beat_at
            yield _status(service, beat.state if age < STATUS_PATIENCE else f"silent for {age:.0f} s", beat)


def _services(settings: Settings) -> list[str]:
    """The services that belong to the pipeline, and others that left a record, such as a second simulator."""
    known = (RUN, *RUN_PROCESSES, *(part.name for part in components(settings)))
    recorded = sorted(path.stem for path in run_folder(settings).glob("*.json"))
    return list(dict.fromkeys([*get_args(ServiceName), *(name for name in recorded if name not in known)]))


def _status(name: str, state: str, record: ProcessRecord | None) -> Status:
    if record is None:
        return Status(name=name, state=state)
    return Status(name=name, state=state, address=record.address, version=record.version, pid=record.pid)
