"""The outside of a long-running process: start or attach, follow, judge, stop. Knows nothing of Dagster."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from stock_pipeline.errors import ServiceDied, ServiceStalled
from stock_pipeline.services.lock import is_held
from stock_pipeline.services.processes import ProcessRecord, last_lines, reap, spawn, wait_until
from stock_pipeline.services.service import (
    Heartbeat,
    ServiceName,
    lock_path,
    record_path,
    run_folder,
    starting_path,
    stopping_path,
)
from stock_pipeline.settings import Settings

log = logging.getLogger(__name__)

START_PATIENCE = 60.0
"""Seconds from the start of a process to its first heartbeat."""

BEAT_PATIENCE = 20.0
"""A process whose heartbeat is older than this many seconds is stopped or hangs."""

WORK_PATIENCE = 60.0
"""A process that has work and has not moved for this many seconds hangs."""

FIRST_WORK_PATIENCE = 300.0
"""The same before its first move: a cluster has to start the executors and their Python first, and on a busy machine a
stream that is killed meanwhile would never get further."""

PROBE = 10.0
"""Seconds between two looks at whether one that does not move has work, and the servers that it needs."""

BLIND = 5.0
"""Of a time longer than this many seconds in which a supervisor did not look, as when its own storage hung, it knows
nothing."""

STOP_PATIENCE = 30.0
"""Seconds that a process has to end its work after SIGTERM."""

SETTLED_AFTER = 60.0
"""A process that lived this many seconds is started again at once when it dies, whether or not there was work."""

RUN_PATIENCE = 15.0
"""Seconds from the end of a service to that of the Dagster run that supervises it."""

COMMANDS: dict[ServiceName, Sequence[str]] = {
    "producer": ("produce",),
    "tick-stream": ("stream", "tick"),
    "ohlcv-stream": ("stream", "ohlcv"),
    "simulator": ("simulate",),
}

SERVICES: tuple[ServiceName, ...] = ("ohlcv-stream", "tick-stream", "producer")
"""What Dagster supervises, the slowest to start first."""


def read_heartbeat(settings: Settings, name: str) -> Heartbeat | None:
    """The newest heartbeat of a service, whether it lives or not."""
    return Heartbeat.read(record_path(settings, name))


def held_path(settings: Settings, name: str) -> Path:
    """A file that says that a person stopped the service, which then stays down until a person starts it."""
    return run_folder(settings) / f"{name}.held"


def start_service(settings: Settings, name: ServiceName) -> subprocess.Popen[bytes]:
    """Start the process of a service, in a session of its own."""
    process = spawn([sys.executable, "-m", "stock_pipeline", *COMMANDS[name]], log_path(settings, name))
    # It takes seconds to its first heartbeat, and a stop meanwhile has to know it.
    ProcessRecord.of(name, process.pid).write(starting_path(settings, name))
    return process


def start_services(settings: Settings) -> None:
    """Start the services before Dagster, which takes longer to start than they do and then attaches to them."""
    for name in SERVICES:
        if not held_path(settings, name).exists() and not is_running(settings, name):
            reap(start_service(settings, name))


class Reviver:
    """Starts services again that die, without waiting for Dagster, whose next run attaches to them.

    One that dies young and has done nothing is left to Dagster, which backs off. To be asked about once a second.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._alive: dict[ServiceName, Heartbeat] = {}

    def look(self) -> None:
        for name in SERVICES:
            beat = read_heartbeat(self._settings, name)
            if beat is not None and beat.is_alive():
                self._alive[name] = beat
            elif name in self._alive and not is_running(self._settings, name):
                self._start_again(name, self._alive.pop(name))

    def _start_again(self, name: ServiceName, last: Heartbeat) -> None:
        was_told = last.state == "stopped" or any(
            path(self._settings, name).exists() for path in (held_path, stopping_path)
        )
        lived = last.beat_at - last.created
        if not was_told and (last.offsets or lived >= SETTLED_AFTER):
            log.warning("%s died after %.0f s and starts again; see %s", name, lived, log_path(self._settings, name))
            reap(start_service(self._settings, name))


def stop_services(settings: Settings) -> None:
    """Stop all services that run or start, at once; the Dagster runs that supervise them end with them."""
    services = [name for name in COMMANDS if living_process(settings, name) is not None]
    for name in services:
        stopping_path(settings, name).touch()
    workers = [threading.Thread(target=terminate, args=(settings, name)) for name in services]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    locks = [lock_path(settings, f"{name}-supervisor") for name in services]
    if not wait_until(lambda: not any(is_held(lock) for lock in locks), RUN_PATIENCE):
        log.warning("a Dagster run did not end with its service; the next start will mark it as failed")


def living_process(settings: Settings, name: str) -> ProcessRecord | None:
    """The recorded process of this name, be it that it is just starting; None: there is none."""
    records = (ProcessRecord.read(path(settings, name)) for path in (record_path, starting_path))
    return next((record for record in records if record is not None and record.is_alive()), None)


def terminate(settings: Settings, name: str) -> None:
    """Ask a recorded process to end; kill it where it does not."""
    record = living_process(settings, name)
    if record is not None:
        record.terminate(STOP_PATIENCE)


def is_running(settings: Settings, name: str) -> bool:
    return is_held(lock_path(settings, name))


def log_path(settings: Settings, name: str) -> Path:
    return settings.home / "logs" / f"{name}.log"


@dataclass
class Supervisor:
    """Keeps an eye on the one process of a service.

    `work_ends` gives the end offset of each Kafka partition, or None where that cannot be known
    or where a component that the service needs is away: then it is not judged by its progress.
    """

    name: ServiceName
    settings: Settings
    work_ends: Callable[[], Mapping[int, int] | None] = lambda: None
    _child: subprocess.Popen[bytes] | None = None
    _since: float = field(default_factory=time.monotonic)
    _pulse: tuple[float, float] = (0.0, 0.0)
    _looked: float = 0.0
    _probed: float = 0.0
    _moved: tuple[float, dict[int, int]] = field(default_factory=lambda: (time.monotonic(), {}))

    def ensure_started(self) -> str:
        """Start the process where the lock is free, else attach to the one that holds it; says which."""
        self._since = time.monotonic()
        self._moved = (self._since, {})
        if is_running(self.settings, self.name):
            beat = read_heartbeat(self.settings, self.name)
            return f"attached to pid {beat.pid if beat else 'unknown'}"
        self._child = start_service(self.settings, self.name)
        return f"started pid {self._child.pid}"

    def check(self) -> Heartbeat | None:
        """The current heartbeat; None while the process is starting, or after it has stopped cleanly.

        Raises:
            ServiceDied: the process is gone.
            ServiceStalled: it was stopped or hangs; it has been killed.
        """
        if self._child is not None:
            self._child.poll()
        beat = read_heartbeat(self.settings, self.name)
        alive = beat is not None and beat.is_alive()
        if beat is None or (self._child is not None and beat.pid != self._child.pid and not alive):
            self._check_start()
            return None
        if not alive:
            if beat.state == "stopped":
                return None
            raise ServiceDied(self._obituary(f"pid {beat.pid} is gone"))
        self._check_pulse(beat)
        self._check_progress(beat)
        return beat

    def has_stopped(self) -> bool:
        """Whether the process has ended because someone asked it to."""
        beat = read_heartbeat(self.settings, self.name)
        ours = self._child is None or (beat is not None and beat.pid == self._child.pid)
        return ours and beat is not None and beat.state == "stopped" and not beat.is_alive()

    def stop(self) -> None:
        """Ask the process to end its work; kill it where it does not."""
        beat = read_heartbeat(self.settings, self.name)
        if beat is not None:
            beat.terminate(STOP_PATIENCE)
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.wait(timeout=10)

    def _check_start(self) -> None:
        if self._child is not None and self._child.returncode is not None:
            if is_running(self.settings, self.name):
                # Another one, which has not beaten yet, was faster.
                self._child = None
                return
            raise ServiceDied(self._obituary(f"ended at its start with exit code {self._child.returncode}"))
        if time.monotonic() - self._since > START_PATIENCE:
            if self._child is not None:
                self._child.kill()
            raise ServiceStalled(self._obituary(f"no heartbeat within {START_PATIENCE:.0f} s"))

    def _check_pulse(self, beat: Heartbeat) -> None:
        changed_at, beat_at = self._pulse
        if beat.beat_at != beat_at:
            self._pulse = (time.monotonic(), beat.beat_at)
            return
        silent_for = time.monotonic() - changed_at
        if silent_for > BEAT_PATIENCE:
            status = psutil.Process(beat.pid).status()
            beat.kill()
            raise ServiceStalled(f"{self.name}: pid {beat.pid} ({status}) was silent for {silent_for:.0f} s: killed")

    def _check_progress(self, beat: Heartbeat) -> None:
        now, was_blind = time.monotonic(), time.monotonic() - self._looked > BLIND
        self._looked = now
        moved_at, offsets = self._moved
        if was_blind or beat.offsets != offsets or beat.state != "running":
            self._moved = (now, beat.offsets)
            return
        if now - self._probed < PROBE:
            return
        self._probed = now
        ends = self.work_ends()
        if ends is None or all(offsets.get(partition, 0) >= end for partition, end in ends.items()):
            self._moved = (now, beat.offsets)
        elif now - moved_at > (WORK_PATIENCE if offsets else FIRST_WORK_PATIENCE):
            beat.kill()
            raise ServiceStalled(f"{self.name}: pid {beat.pid} stood at {offsets} with work up to {dict(ends)}: killed")

    def _obituary(self, reason: str) -> str:
        path = log_path(self.settings, self.name)
        return f"{self.name}: {reason}; the end of {path}:\n{last_lines(path)}"
