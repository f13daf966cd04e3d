"""What Kafka and TimescaleDB have in common as parts of the embedded stack."""

import ipaddress
import logging
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from itertools import cycle, islice
from random import randrange

from stock_pipeline.errors import PortTaken, SettingsError, StartError
from stock_pipeline.services.processes import ProcessRecord, last_lines, reap, wait_until
from stock_pipeline.settings import Settings

log = logging.getLogger(__name__)

START_PATIENCE = 60.0
"""Seconds from the start of a component to its first healthy answer."""

START_ATTEMPTS = 3
"""A component that was killed may leave a socket or shared memory behind, which goes away in a moment."""

_PORTS = islice(cycle(range(20_000, 32_768)), randrange(32_768 - 20_000), None)
"""Below those from which a system takes one for a connection, which may come between the choice of a port and its use:
Linux begins with 32,768 (net.ipv4.ip_local_port_range), others with 49,152 (RFC 6335)."""


class Component(ABC):
    """One server of the embedded stack: a process in the background, recorded in `home/run/NAME.json`."""

    name: str
    setting: str
    """The setting that says where it listens."""
    stop_signal = signal.SIGTERM

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.record_path = settings.home / "run" / f"{self.name}.json"
        self.log_file = settings.home / "logs" / f"{self.name}.log"

    @property
    @abstractmethod
    def address(self) -> tuple[str, int]:
        """Host and port."""

    @abstractmethod
    def install(self) -> None:
        """Download what is needed, once."""

    @abstractmethod
    def prepare(self) -> None:
        """Create the data folder where there is none."""

    @abstractmethod
    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process."""

    @abstractmethod
    def is_healthy(self) -> bool:
        """Whether it answers."""

    def is_recovering(self) -> bool:
        """Whether it says that it is on its way, however long that takes."""
        return False

    @abstractmethod
    def version(self) -> str:
        """Version of the running server."""

    def on_healthy(self) -> None:  # noqa: B027 - not every component has anything left to do
        """What is left to do once it answers."""

    def record(self) -> ProcessRecord | None:
        """The running process, if there is one."""
        record = ProcessRecord.read(self.record_path)
        return record if record is not None and record.is_alive() else None

    def start(self) -> bool:
        """Bring it up; false where it was up already.

        Raises:
            PortTaken: another program listens at its address.
            StartError: it did not become healthy.
        """
        known = self.record()
        if known is not None and (self.is_healthy() or (self.is_recovering() and self._becomes_healthy(known))):
            return False
        self.stop()
        self._check_address()
        self.install()
        self.prepare()
        for attempt in range(1, START_ATTEMPTS + 1):
            process = self.launch()
            record = ProcessRecord.of(self.name, process.pid, address=self._address_text())
            reap(process)
            record.write(self.record_path)
            if self._becomes_healthy(record):
                self.on_healthy()
                record.model_copy(update={"version": self.version()}).write(self.record_path)
                return True
            record.kill()
            log.warning("%s did not start (attempt %d of %d)", self.name, attempt, START_ATTEMPTS)
            wait_until(lambda: is_port_free(*self.address), patience=3)
        raise StartError(f"{self.name} did not start; the end of {self.log_file}:\n{last_lines(self.log_file)}")

    def _becomes_healthy(self, record: ProcessRecord) -> bool:
        """Wait until it answers, for START_PATIENCE and as long as it says that it is on its way; whether it does."""
        while not wait_until(lambda: self.is_healthy() or not record.is_alive(), START_PATIENCE):
            if not self.is_recovering():
                return False
            log.info("%s recovers from how it ended; see %s", self.name, self.log_file)
        return record.is_alive()

    def stop(self) -> bool:
        """Stop it; false where it was not running."""
        record = self.record()
        if record is not None:
            record.terminate(30, self.stop_signal)
        self.record_path.unlink(missing_ok=True)
        return record is not None

    def _address_text(self) -> str:
        host, port = self.address
        return f"{host}:{port}"

    def _check_address(self) -> None:
        host, port = self.address
        try:
            local = ipaddress.ip_address(socket.gethostbyname(host))
        except OSError as error:
            raise SettingsError(f"{self.setting}: {host} has no address: {error}") from error
        if not is_port_free(host, port):
            raise PortTaken(
                f"{self.name}: port {port} of {host} ({local}) is taken by another program, or is not on this machine; "
                f"end that program, or set {self.setting.upper()} to another port"
            )


def is_port_free(host: str, port: int) -> bool:
    """Whether a program could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((socket.gethostbyname(host), port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback interface that nobody listens on, another one at each call."""
    return next(port for port in _PORTS if is_port_free("127.0.0.1", port))
