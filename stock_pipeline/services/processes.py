"""Processes as files: who started what, is it still that process, and how to end it.

A process is known by its id and its start together: ids are used again. The start is counted from the boot, since the
time of day at which the kernel says that a process began moves with every step of the clock.
"""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Self

import psutil
from pydantic import BaseModel, ValidationError

log = logging.getLogger(__name__)

LOG_FILE_LIMIT = 10 * 1024 * 1024
"""A log file larger than this many bytes is set aside, as NAME.log.1, when its service starts."""

STARTED = 19
"""Place of a process's start among the fields of /proc/PID/stat that follow the program's name."""


def identity(pid: int) -> str:
    """What no other process has: the boot, and the start in the kernel's ticks since then (proc(5), `stat`).

    Raises:
        psutil.NoSuchProcess: there is no such process.
    """
    try:
        # The name of the program, in parentheses, may hold any character.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    return f"{boot_id()}-{fields[STARTED]}"


@cache
def boot_id() -> str:
    """Changes with each start of the machine (random(4))."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class ProcessRecord(BaseModel, frozen=True):
    """A process, written to `home/run/NAME.json`."""

    name: str
    pid: int
    created: float
    """When it started, in seconds since the epoch, by the clock of then."""
    identity: str = ""
    """See `identity`; empty in a record of an older version, which has the time only."""
    version: str = ""
    address: str = ""

    @classmethod
    def of(cls, name: str, pid: int, version: str = "", address: str = "") -> Self:
        created = psutil.Process(pid).create_time()
        return cls(name=name, pid=pid, created=created, identity=identity(pid), version=version, address=address)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record, or None where there is none or it is unreadable: such a process cannot be known."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            log.warning("%s is no process record and is ignored", path)
            return None

    def write(self, path: Path) -> None:
        """Replace the file in one step, so that a reader never sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(self.model_dump_json())
        partial.replace(path)

    def is_alive(self) -> bool:
        """Whether this very process, not another of the same id, is running."""
        return self._process() is not None

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            if self.identity:
                same = identity(self.pid) == self.identity
            else:
                same = abs(process.create_time() - self.created) < 2
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None

    def terminate(self, patience: float, request: signal.Signals = signal.SIGTERM) -> None:
        """End the process and what it started: asked first, killed after `patience` seconds."""
        family = self._family()
        if not family:
            return
        process = family[0]
        with suppress(psutil.NoSuchProcess):
            process.send_signal(request)
            process.resume()
        if psutil.wait_procs([process], timeout=patience)[1]:
            log.warning("%s (pid %d) did not stop within %.0f s and is killed", self.name, self.pid, patience)
        self._kill(family)

    def hang_up(self) -> None:
        """Send SIGHUP: read your settings again."""
        process = self._process()
        if process is not None:
            process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """End the process and what it started at once."""
        self._kill(self._family())

    def _family(self) -> list[psutil.Process]:
        """The process first, and what it started; empty where it is gone."""
        process = self._process()
        try:
            return [process, *process.children(recursive=True)] if process is not None else []
        except psutil.NoSuchProcess:
            return []

    @staticmethod
    def _kill(family: Sequence[psutil.Process]) -> None:
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family, timeout=10)


def spawn(
    command: Sequence[str | Path],
    log_file: Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C and a dying parent do not reach it.

    Its output is appended to `log_file`.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    if log_file.exists() and log_file.stat().st_size > LOG_FILE_LIMIT:
        log_file.replace(log_file.with_suffix(".log.1"))
    with log_file.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=cwd,
            start_new_session=True,
        )


def reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a child in the background: one that is not waited for would stay as a zombie and look alive.

    Only after its record was made: one that ends at once is not known any more as soon as it has been waited for.
    """
    threading.Thread(target=process.wait, daemon=True).start()


def last_lines(log_file: Path, count: int = 15) -> str:
    """The end of a log file, for an error message."""
    if not log_file.exists():
        return ""
    with log_file.open("rb") as source:
        source.seek(max(0, log_file.stat().st_size - 8192))
        return "\n".join(source.read().decode(errors="replace").splitlines()[-count:])


def wait_until(ready: Callable[[], bool], patience: float, pause: float = 0.1) -> bool:
    """Call `ready` until it returns true; false after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
