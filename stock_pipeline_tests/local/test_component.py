"""A component is given time to start, and more of it while it says that it is on its way."""

import subprocess
import time
from pathlib import Path

import pytest

from stock_pipeline.errors import StartError
from stock_pipeline.local import component
from stock_pipeline.services.processes import spawn
from stock_pipeline.settings import Settings


class Slow(component.Component):
    """Healthy a second after its start."""

    name = "slow"
    setting = "db_url"
    address = ("127.0.0.1", component.free_port())
    launches = 0

    def __init__(self, home: Path, recovers: bool) -> None:
        super().__init__(Settings(stock_pipeline_home=home))
        self.recovers = recovers

    def install(self) -> None:
        """Nothing is needed."""

    def prepare(self) -> None:
        """Nothing to create."""

    def launch(self) -> subprocess.Popen[bytes]:
        self.launches += 1
        self.launched = time.monotonic()
        return spawn(["sleep", "60"], self.log_file)

    def is_healthy(self) -> bool:
        return time.monotonic() - self.launched > 1

    def is_recovering(self) -> bool:
        return self.recovers

    def version(self) -> str:
        return "1"


def test_one_that_recovers_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(component, "START_PATIENCE", 0.2)
    slow = Slow(tmp_path, recovers=True)
    assert slow.start()
    assert slow.launches == 1
    again = Slow(tmp_path, recovers=True)
    again.launched = time.monotonic()
    assert not again.start(), "also by the next that would start it"
    assert again.launches == 0
    assert slow.stop()


def test_one_that_says_nothing_is_started_again_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(component, "START_PATIENCE", 0.2)
    slow = Slow(tmp_path, recovers=False)
    with pytest.raises(StartError, match="slow did not start"):
        slow.start()
    assert slow.launches == component.START_ATTEMPTS
    assert slow.record() is None


def test_no_connection_is_given_a_port_that_was_free():
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = [component.free_port() for _ in range(100)]
    assert len(set(ports)) == len(ports)
    assert max(ports) < first
