"""Supervision of real processes: started once, attached to, found dead, found stopped, ended."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from stock_pipeline.errors import AlreadyRunning, ServiceDied, ServiceStalled, StartError
from stock_pipeline.local import component, run
from stock_pipeline.local.timescaledb import TimescaleDB
from stock_pipeline.services import supervisor as module
from stock_pipeline.services.lock import hold, is_held
from stock_pipeline.services.processes import ProcessRecord, identity, spawn
from stock_pipeline.services.supervisor import Reviver, Supervisor, is_running, read_heartbeat
from stock_pipeline.settings import Settings
from stock_pipeline_tests.conftest import eventually

WORK = textwrap.dedent(
    """
    import sys
    from stock_pipeline.services.service import Service
    from stock_pipeline.settings import Settings
    with Service("producer", Settings(stock_pipeline_home=sys.argv[1]), in_database=False) as service:
        service.state = "running"
        service.offsets = {0: 5}
        service.stop.wait(60)
    """
)


IDLE = WORK.replace("{0: 5}", "{}")
"""Of one that has done nothing yet."""


def spawn_instead(monkeypatch: pytest.MonkeyPatch, program: str, home: Path) -> None:
    def spawn_program(command: list[str], log_file: Path):
        return spawn([sys.executable, "-c", program, str(home)], log_file)

    monkeypatch.setattr(module, "spawn", spawn_program)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home in which the producer is a process that only beats."""
    spawn_instead(monkeypatch, WORK, tmp_path)
    yield Settings(stock_pipeline_home=tmp_path)
    record = ProcessRecord.read(tmp_path / "run" / "producer.json")
    if record is not None:
        record.kill()


def started(settings: Settings, **options: object) -> tuple[Supervisor, int]:
    supervisor = Supervisor("producer", settings, **options)
    assert "started" in supervisor.ensure_started()
    return supervisor, eventually(supervisor.check, 20).pid


def test_it_is_started_once_and_attached_to(settings: Settings):
    _, pid = started(settings)
    second = Supervisor("producer", settings)
    assert second.ensure_started() == f"attached to pid {pid}"
    assert second.check().pid == pid


def test_a_killed_process_is_found_dead_and_its_lock_is_free(settings: Settings):
    supervisor, pid = started(settings)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ServiceDied, match="is gone"):
        eventually(lambda: supervisor.check() is None, 10)
    eventually(lambda: not is_running(settings, "producer"), 5)


def revived(settings: Settings, pid: int) -> int:
    """The process that a reviver starts for a killed one; 0 where it does not."""
    reviver = Reviver(settings)
    reviver.look()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        reviver.look()
        beat = read_heartbeat(settings, "producer")
        if beat is not None and beat.pid != pid:
            return beat.pid
        time.sleep(0.1)
    return 0


def test_one_that_dies_after_it_has_worked_is_started_again_at_once(settings: Settings):
    _, pid = started(settings)
    eventually(lambda: read_heartbeat(settings, "producer").offsets, 5)
    assert revived(settings, pid)
    assert is_running(settings, "producer")


def test_one_that_dies_young_without_having_worked_is_left_to_dagster(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    spawn_instead(monkeypatch, IDLE, settings.home)
    _, pid = started(settings)
    assert not revived(settings, pid)
    assert not is_running(settings, "producer")
    monkeypatch.setattr(module, "SETTLED_AFTER", 0)
    _, pid = started(settings)
    assert revived(settings, pid)


def test_one_that_is_just_starting_is_stopped_too(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    spawn_instead(monkeypatch, "import time; time.sleep(60)", settings.home)
    process = module.start_service(settings, "producer")
    assert read_heartbeat(settings, "producer") is None
    module.stop_services(settings)
    # Its end was waited for already, so that its code is not known here any more.
    process.wait(5)


@pytest.mark.parametrize("said_by", [module.held_path, module.stopping_path])
def test_one_that_was_asked_to_end_is_not_started_again(settings: Settings, said_by: Callable[[Settings, str], Path]):
    _, pid = started(settings)
    eventually(lambda: read_heartbeat(settings, "producer").offsets, 5)
    said_by(settings, "producer").touch()
    assert not revived(settings, pid)


def test_stopping_says_so_until_the_next_start(settings: Settings):
    _, pid = started(settings)
    module.stop_services(settings)
    assert module.stopping_path(settings, "producer").exists()
    started(settings)
    assert not module.stopping_path(settings, "producer").exists()


def test_a_stopped_process_is_killed(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "BEAT_PATIENCE", 3)
    supervisor, pid = started(settings)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ServiceStalled, match="stopped.*silent"):
        eventually(lambda: supervisor.check() is None, 15)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_that_does_not_move_though_there_is_work_is_killed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "WORK_PATIENCE", 2)
    monkeypatch.setattr(module, "PROBE", 0)
    supervisor, _ = started(settings, work_ends=lambda: {0: 6})
    with pytest.raises(ServiceStalled, match="with work up to"):
        eventually(lambda: supervisor.check() is None, 15)


def test_servers_that_come_back_and_a_supervisor_that_did_not_look_give_a_process_new_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "WORK_PATIENCE", 3)
    monkeypatch.setattr(module, "PROBE", 0)
    servers: list[dict[int, int] | None] = [None]
    supervisor, pid = started(settings, work_ends=lambda: servers[-1])

    def lives_for(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert supervisor.check().pid == pid
            time.sleep(0.1)

    lives_for(4)
    servers.append({0: 6})
    lives_for(2)
    monkeypatch.setattr(module, "BLIND", 1.5)
    time.sleep(2)
    lives_for(2)
    with pytest.raises(ServiceStalled, match="with work up to"):
        lives_for(5)


@pytest.mark.parametrize("ends", [None, {0: 5}])
def test_a_process_without_work_may_stand_still(settings: Settings, monkeypatch: pytest.MonkeyPatch, ends):
    monkeypatch.setattr(module, "WORK_PATIENCE", 0.5)
    monkeypatch.setattr(module, "PROBE", 0)
    supervisor, pid = started(settings, work_ends=lambda: ends)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert supervisor.check().pid == pid
        time.sleep(0.2)


def test_a_process_is_given_longer_for_its_first_move(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    spawn_instead(monkeypatch, IDLE, settings.home)
    monkeypatch.setattr(module, "WORK_PATIENCE", 0.5)
    monkeypatch.setattr(module, "PROBE", 0)
    supervisor, pid = started(settings, work_ends=lambda: {0: 6})
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert supervisor.check().pid == pid
        time.sleep(0.2)
    monkeypatch.setattr(module, "FIRST_WORK_PATIENCE", 1)
    with pytest.raises(ServiceStalled, match="with work up to"):
        eventually(lambda: supervisor.check() is None, 15)


def test_a_process_that_was_asked_to_stop_has_not_died(settings: Settings):
    supervisor, pid = started(settings)
    os.kill(pid, signal.SIGTERM)
    eventually(supervisor.has_stopped, 15)
    assert supervisor.check() is None
    assert read_heartbeat(settings, "producer").state == "stopped"


def test_stop_ends_the_process(settings: Settings):
    supervisor, pid = started(settings)
    supervisor.stop()
    assert not is_running(settings, "producer")
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_lock_has_one_holder(tmp_path: Path):
    path = tmp_path / "x.lock"
    with hold(path):
        assert is_held(path)
        with pytest.raises(AlreadyRunning, match="x is running already"), hold(path, patience=0.2):
            pass
    assert not is_held(path)


def test_a_record_of_another_process_of_the_same_id_is_not_it(tmp_path: Path):
    record = ProcessRecord.of("x", os.getpid())
    assert record.is_alive()
    assert not record.model_copy(update={"identity": identity(1)}).is_alive()
    older = ProcessRecord(name="x", pid=os.getpid(), created=record.created)
    assert older.is_alive(), "of a version that wrote no identity"
    assert not older.model_copy(update={"created": record.created - 60}).is_alive()


def test_a_process_stays_itself_when_the_clock_is_stepped(monkeypatch: pytest.MonkeyPatch):
    record = ProcessRecord.of("x", os.getpid())
    then = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: then + 3600)
    assert record.is_alive()


def test_one_that_ends_at_once_is_recorded_before_it_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "reap", lambda process: process.wait())
    monkeypatch.setattr(component, "reap", lambda process: process.wait())
    settings = Settings(stock_pipeline_home=tmp_path, db_url=f"postgresql://127.0.0.1:{component.free_port()}/x")
    supervised = run.Supervised("x", ["true"], {})
    supervised.keep_running(settings)
    assert not supervised.record.is_alive()

    class Short(TimescaleDB):
        def install(self) -> None:
            """Nothing is needed."""

        def prepare(self) -> None:
            """Nothing to create."""

        def launch(self) -> subprocess.Popen[bytes]:
            return spawn(["true"], self.log_file)

    with pytest.raises(StartError, match="timescaledb did not start"):
        Short(settings).start()


def test_an_unreadable_record_is_no_record(tmp_path: Path):
    (tmp_path / "x.json").write_text("{")
    assert ProcessRecord.read(tmp_path / "x.json") is None
