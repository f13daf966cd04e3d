"""The inside of a long-running process: alone (lock), observable (heartbeat), stoppable (signals)."""

import json
import logging
import os
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Literal, Self

import psycopg

from stock_pipeline import __version__
from stock_pipeline.errors import first_line
from stock_pipeline.services.lock import hold
from stock_pipeline.services.processes import ProcessRecord
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import load_sql

log = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds between two heartbeats."""

SUMMARY = 10.0
"""Seconds between two summary lines, and between two rows for the dashboards."""

ServiceName = Literal["producer", "tick-stream", "ohlcv-stream", "simulator"]


class Heartbeat(ProcessRecord, frozen=True):
    """What a service says of itself, every second, in `home/run/NAME.json`."""

    beat_at: float
    """Seconds since the epoch."""
    state: str
    offsets: dict[int, int]
    """Next offset of each Kafka partition: everything below is done."""
    counts: dict[str, int]
    """Since the start of the process."""
    figures: dict[str, float] = {}
    """Measures of the newest work, such as the lag."""
    symbols: list[str] = []
    """What the producer subscribes to."""
    links: dict[str, str] = {}


def run_folder(settings: Settings) -> Path:
    return settings.home / "run"


def lock_path(settings: Settings, name: str) -> Path:
    return run_folder(settings) / f"{name}.lock"


def record_path(settings: Settings, name: str) -> Path:
    return run_folder(settings) / f"{name}.json"


def stopping_path(settings: Settings, name: str) -> Path:
    """A file that says that the service was asked to end, for whoever would start it again; gone when it starts."""
    return run_folder(settings) / f"{name}.stopping"


def starting_path(settings: Settings, name: str) -> Path:
    """The record of a process that was started and has not beaten yet; gone with its first heartbeat."""
    return run_folder(settings) / f"{name}.starting"


class Service:
    """Context manager around the work of one service.

    The work reads `stop`, and writes `state`, `offsets`, `counts`, `figures`, `symbols` and `links`.

    Raises:
        AlreadyRunning: on entering, where the same service runs in this home.
    """

    def __init__(self, name: str, settings: Settings, in_database: bool = True) -> None:
        self.name = name
        self.stop = threading.Event()
        self.state = "starting"
        self.offsets: dict[int, int] = {}
        self.counts: Counter[str] = Counter()
        self.figures: dict[str, float] = {}
        self.symbols: list[str] = []
        self.links: dict[str, str] = {}
        self._settings = settings
        self._finished = threading.Event()
        loops = (self._beat, self._log, self._tell_dashboards) if in_database else (self._beat, self._log)
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
        self._stack = ExitStack()
        self._process = ProcessRecord.of(name, os.getpid(), __version__)

    def __enter__(self) -> Self:
        self._stack.enter_context(hold(lock_path(self._settings, self.name)))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        stopping_path(self._settings, self.name).unlink(missing_ok=True)
        self._write_heartbeat()
        starting_path(self._settings, self.name).unlink(missing_ok=True)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._finished.set()
        for thread in self._threads:
            thread.join(timeout=10)
        self.state = "stopped" if kind is None else "failed"
        self._write_heartbeat()
        log.info("%s: %s", self.name, self.summary())
        self._stack.close()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.state = "stopping"
        self.stop.set()

    def heartbeat(self) -> Heartbeat:
        return Heartbeat(
            **self._process.model_dump(),
            beat_at=time.time(),
            state=self.state,
            offsets=dict(self.offsets),
            counts=dict(self.counts),
            figures=dict(self.figures),
            symbols=self.symbols,
            links=dict(self.links),
        )

    def _write_heartbeat(self) -> None:
        self.heartbeat().write(record_path(self._settings, self.name))

    def _beat(self) -> None:
        while not self._finished.wait(BEAT):
            try:
                self._write_heartbeat()
            except OSError as error:
                log.warning("%s: heartbeat not written: %s", self.name, error)

    def summary(self) -> str:
        """State, counts and offsets in one line."""
        return json.dumps({"state": self.state, **self.counts, "now": self.figures, "offsets": self.offsets})

    def _log(self) -> None:
        while not self._finished.wait(SUMMARY):
            log.info("%s: %s", self.name, self.summary())

    def _tell_dashboards(self) -> None:
        """A row for the dashboards; a database that is away does not matter to the service."""
        told = True
        while not self._finished.wait(SUMMARY):
            try:
                self._write_row()
                told = True
            except psycopg.Error as error:
                if told:
                    log.warning("%s: the work goes on without the database: %s", self.name, first_line(error))
                told = False

    def _write_row(self) -> None:
        beat = self.heartbeat()
        values = beat.model_dump(include={"name", "pid", "created", "version", "beat_at", "state", "symbols"})
        values["counts"] = beat.model_dump_json(include={"counts", "figures"})
        with psycopg.connect(self._settings.conninfo("writer"), autocommit=True) as connection:
            connection.execute(load_sql("queries/upsert_service_heartbeat.sql"), values)
