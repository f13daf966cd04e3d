"""`stock-pipeline run`: everything in the foreground, each process started again when it dies."""

import json
import logging
import os
import shutil
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import psycopg

from stock_pipeline import PROJECT_ROOT, __version__
from stock_pipeline.database import DAGSTER_DATABASE
from stock_pipeline.errors import PortTaken, StockPipelineError
from stock_pipeline.local.component import Component, free_port, is_port_free
from stock_pipeline.local.grafana import WHERE_TO_GET_IT, grafana_command, grafana_environment
from stock_pipeline.local.stack import RUN, RUN_PROCESSES, check_is_embedded, components, down, up
from stock_pipeline.services.lock import hold
from stock_pipeline.services.processes import ProcessRecord, reap, spawn
from stock_pipeline.services.service import lock_path, record_path
from stock_pipeline.services.supervisor import (
    COMMANDS,
    SETTLED_AFTER,
    Reviver,
    log_path,
    start_services,
    stop_services,
    terminate,
)
from stock_pipeline.settings import Settings

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks at the processes."""

TRY_AGAIN = (StockPipelineError, psycopg.Error, psutil.Error, OSError)
"""What a start fails with that the next may not: a server dies meanwhile, or the disk is full."""

MAX_PAUSE = 30.0
"""Most seconds between two starts of a process that keeps dying."""

HOST = "127.0.0.1"

LOCATION = "stock_pipeline"
"""Dagster's name for our code, here as in workspace.yaml."""


@dataclass
class Supervised:
    """A process that is started again when it dies, the longer after the oftener."""

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str]
    address: str = ""
    record: ProcessRecord | None = None
    _started: float = 0.0
    _failures: int = 0
    _next_start: float = field(default_factory=time.monotonic)

    def keep_running(self, settings: Settings) -> None:
        now = time.monotonic()
        if self.record is not None and self.record.is_alive():
            return
        if self.record is not None:
            self.record = None
            self._failures = 1 if now - self._started > SETTLED_AFTER else self._failures + 1
            pause = 0.0 if self._failures == 1 else min(MAX_PAUSE, 2.0**self._failures)
            self._next_start = now + pause
            log.warning("%s died and starts again in %.0f s; see %s", self.name, pause, log_path(settings, self.name))
        if now >= self._next_start:
            process = spawn(self.command, log_path(settings, self.name), self.environment, cwd=PROJECT_ROOT)
            self.record = ProcessRecord.of(self.name, process.pid, __version__, self.address)
            reap(process)
            self.record.write(record_path(settings, self.name))
            self._started = now


def dagster_environment(settings: Settings) -> dict[str, str]:
    """Dagster's home under ours, and its storage in a database of its own beside the market data."""
    folder = settings.home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).parent / "dagster.yaml", folder)
    host, port = settings.db_address
    user, password = settings.role("owner")
    return {
        "DAGSTER_HOME": str(folder),
        "DAGSTER_DB_HOST": host,
        "DAGSTER_DB_PORT": str(port),
        "DAGSTER_DB_NAME": DAGSTER_DATABASE,
        "DAGSTER_DB_USER": user,
        "DAGSTER_DB_PASSWORD": password or "",
        "STOCK_PIPELINE_HOME": str(settings.home),
    }


def _write_workspace(settings: Settings, port: str) -> Path:
    """Where the code server is. Dagster ties the state of sensors and schedules to the location's name."""
    location = {"host": HOST, "port": int(port), "location_name": LOCATION}
    path = settings.home / "dagster" / "workspace.yaml"
    path.write_text(json.dumps({"load_from": [{"grpc_server": location}]}))
    return path


def processes(settings: Settings) -> list[Supervised]:
    """Dagster's three processes, Grafana where there is one and, without a token, the simulator."""
    environment = dagster_environment(settings)
    scripts = Path(sysconfig.get_path("scripts"))
    code = str(free_port())
    client: list[str | Path] = ["--workspace", _write_workspace(settings, code)]
    server = ["--module-name", "stock_pipeline.definitions", "--location-name", LOCATION]
    server += ["--host", HOST, "--port", code, "--working-directory", str(PROJECT_ROOT)]
    listen = ["--host", HOST, "--port", str(settings.webserver_port)]
    # On few cores the feed goes before what watches it.
    nice = ["nice", "-n", "5"]
    commands: dict[str, tuple[Sequence[str | Path], str]] = {
        "code-server": ([*nice, sys.executable, "-m", "stock_pipeline.local.grpc_server", *server], f"{HOST}:{code}"),
        "daemon": ([*nice, scripts / "dagster-daemon", "run", *client], ""),
        "webserver": ([*nice, scripts / "dagster-webserver", *client, *listen], f"{HOST}:{settings.webserver_port}"),
    }
    if settings.uses_simulator:
        simulator = [sys.executable, "-m", "stock_pipeline", *COMMANDS["simulator"]]
        commands["simulator"] = (simulator, f"{HOST}:{settings.simulator_port}")
    parts = [Supervised(name, command, environment, address) for name, (command, address) in commands.items()]
    if (grafana := grafana_command(settings)) is not None:
        address = f"{HOST}:{settings.grafana_port}"
        parts.append(Supervised("grafana", [*nice, *grafana], grafana_environment(settings), address))
    return parts


def run_everything(settings: Settings) -> None:
    """Start everything and keep it running until SIGINT or SIGTERM; then stop everything.

    Raises:
        AlreadyRunning: it runs in this home.
        PortTaken: another program listens where a part should.
    """
    check_is_embedded(settings)
    stop = threading.Event()
    with hold(lock_path(settings, RUN)):
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        ProcessRecord.of(RUN, os.getpid(), __version__).write(record_path(settings, RUN))
        _stop_leftovers(settings)
        _check_ports(settings)
        try:
            log.info("starting TimescaleDB and Kafka")
            up(settings)
            if not stop.is_set():
                _supervise(settings, stop)
        finally:
            log.info("stopping")
            _stop_everything(settings)
            record_path(settings, RUN).unlink(missing_ok=True)
    log.info("stopped")


def _supervise(settings: Settings, stop: threading.Event) -> None:
    start_services(settings)
    managed = processes(settings)
    for process in managed:
        process.keep_running(settings)
    looks: list[Callable[[], None]] = [partial(_revive, part) for part in components(settings)]
    looks += [partial(process.keep_running, settings) for process in managed]
    looks.append(Reviver(settings).look)
    announced = False
    while not stop.wait(LOOK):
        for look in looks:
            try:
                look()
            except TRY_AGAIN as error:
                log.error("%s: %s", type(error).__name__, error)
        if not announced and not is_port_free(HOST, settings.webserver_port):
            announced = True
            _announce(settings)


def _revive(part: Component) -> None:
    if part.record() is not None:
        return
    log.warning("%s died and is started again; see %s", part.name, part.log_file)
    part.start()


def _announce(settings: Settings) -> None:
    kafka, database = settings.kafka_bootstrap_servers, settings.db_url
    feed = f"simulated trades from {settings.feed_url}" if settings.uses_simulator else settings.feed_url
    log.info("Dagster      http://localhost:%d", settings.webserver_port)
    if grafana_command(settings) is not None:
        log.info("Grafana      http://localhost:%d", settings.grafana_port)
    else:
        log.info("Grafana      not found; get it from %s, unpack it and set GRAFANA_HOME", WHERE_TO_GET_IT)
    log.info("TimescaleDB  %s (user stocks_reader; password in %s)", database, settings.credentials_path)
    log.info("Kafka        %s, topic %s", kafka, settings.kafka_topic)
    log.info("feed         %s", feed)
    log.info("logs         %s; Ctrl-C stops everything", settings.home / "logs")


def _stop_leftovers(settings: Settings) -> None:
    """End what a run that was killed left running of Dagster and Grafana; services and stack go on."""
    for name in (*RUN_PROCESSES, "simulator"):
        record = ProcessRecord.read(record_path(settings, name))
        if record is not None:
            record.terminate(patience=10)


def _check_ports(settings: Settings) -> None:
    wanted = {"webserver_port": settings.webserver_port}
    if grafana_command(settings) is not None:
        wanted["grafana_port"] = settings.grafana_port
    if settings.uses_simulator:
        wanted["simulator_port"] = settings.simulator_port
    for setting, port in wanted.items():
        if not is_port_free(HOST, port):
            raise PortTaken(
                f"port {port} is taken by another program; end it, or set {setting.upper()} to another port"
            )


def _stop_everything(settings: Settings) -> None:
    """The daemon first, so that nothing is started again; then the services, whose runs end with them."""
    terminate(settings, "daemon")
    stop_services(settings)
    down(settings, keep_run=True)
