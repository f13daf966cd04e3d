"""The embedded stack as its user meets it: up, down, status, and what stands in their way."""

import json
import os
import socket
import stat
import time
import uuid
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient

from stock_pipeline.local.kafka import Kafka
from stock_pipeline.settings import Settings
from stock_pipeline_tests.conftest import Stack

pytestmark = pytest.mark.stack


def status(stack: Stack) -> dict[str, dict]:
    return {line["name"]: line for line in json.loads(stack.command("status", "--json").stdout)}


def test_status_says_state_address_version_and_pid(stack: Stack):
    parts = status(stack)
    assert parts["kafka"]["state"] == parts["timescaledb"]["state"] == "healthy"
    assert parts["kafka"]["address"] == stack.kafka
    assert parts["kafka"]["version"] == "4.1.1"
    assert "PostgreSQL" in parts["timescaledb"]["version"]
    assert psutil.pid_exists(parts["kafka"]["pid"])
    assert parts["producer"]["state"] == "stopped"


def test_a_second_up_changes_nothing_and_says_so(stack: Stack):
    before = status(stack)
    done = stack.command("up")
    assert done.returncode == 0
    assert done.stdout.count("up already") == 2
    assert status(stack) == before


def test_init_db_again_changes_nothing(stack: Stack):
    columns = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
    before = sorted(stack.query(columns))
    assert stack.command("init-db").returncode == 0
    assert sorted(stack.query(columns)) == before


def test_the_passwords_are_generated_and_private(stack: Stack, own: Stack):
    path = stack.home / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    passwords = json.loads(path.read_text())
    assert set(passwords) == {"superuser", "owner", "writer", "reader"}
    assert len(set(passwords.values())) == 4
    assert min(map(len, passwords.values())) >= 24


def test_up_down_up_keeps_the_data_and_down_leaves_no_process(own: Stack):
    began = time.monotonic()
    assert own.command("up").returncode == 0
    print(f"up took {time.monotonic() - began:.1f} s")
    with own.connect() as connection:
        connection.execute("INSERT INTO tick_data VALUES ('A', 1, now(), 1, 1, NULL, now())")
    pids = [status(own)[name]["pid"] for name in ("kafka", "timescaledb")]
    with own.connect():
        done = own.command("down")
    assert done.stdout == "stopped timescaledb, kafka\n"
    assert "timescaledb (pid" not in done.stderr, "a client that stays does not hold it up"
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert own.command("down").stdout == "nothing was running\n"
    # A process id file that is left over, of a process that is another now.
    (own.home / "run" / "kafka.json").write_text(json.dumps({"name": "kafka", "pid": os.getpid(), "created": 1.0}))
    assert own.command("up").returncode == 0
    assert own.query("SELECT count(*) FROM tick_data") == [(1,)]
    psutil.Process(status(own)["timescaledb"]["pid"]).kill()
    assert own.command("up").returncode == 0
    assert own.query("SELECT count(*) FROM tick_data") == [(1,)]


def test_a_first_start_that_was_killed_is_repeated(own: Stack):
    for name in ("timescaledb.partial/PG_VERSION", "credentials.partial"):
        (own.home / name).parent.mkdir(parents=True, exist_ok=True)
        (own.home / name).write_text("1")
    assert own.command("up").returncode == 0
    assert own.query("SELECT count(*) FROM tick_data") == [(0,)]
    assert stat.S_IMODE((own.home / "credentials.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("setting", ["KAFKA_BOOTSTRAP_SERVERS", "DB_URL"])
def test_a_taken_port_is_named_with_its_setting(own: Stack, setting: str):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        value = f"localhost:{port}" if setting.startswith("KAFKA") else f"postgresql://localhost:{port}/stocks"
        done = own.command("up", **{setting: value})
    assert done.returncode == 1
    assert setting in done.stderr and str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_java_is_told_with_the_command_that_installs_it(own: Stack, tmp_path: Path):
    done = own.command("up", JAVA_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "openjdk-17-jre-headless" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_stack_of_others_is_not_started(own: Stack):
    done = own.command("run", STACK="external")
    assert done.returncode == 1
    assert "STACK=embedded" in done.stderr


def test_topics_and_tables_are_created_in_the_stack_of_others(stack: Stack):
    password = json.loads((stack.home / "credentials.json").read_text())["owner"]
    external = {"STACK": "external", "DB_PASSWORD": password, "KAFKA_TOPIC": "of-others"}
    done = stack.command("up", **external)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "topic of-others and database stocks are ready\n"
    topics = AdminClient({"bootstrap.servers": stack.kafka}).list_topics(timeout=10).topics
    assert len(topics["of-others"].partitions) == 4
    assert {"kafka", "timescaledb"}.isdisjoint(
        line["name"] for line in json.loads(stack.command("status", "--json", **external).stdout)
    )


def test_a_log_that_is_not_there(stack: Stack):
    done = stack.command("logs", "nonsense")
    assert done.returncode == 1
    assert "kafka" in done.stderr


def test_a_broken_config_file_is_named(stack: Stack):
    path = stack.home.parent / "config.json"
    path.write_text('{"symbols": 7}')
    try:
        done = stack.command("status")
    finally:
        path.unlink()
    assert done.returncode == 1
    assert "symbols" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_id_may_begin_with_a_hyphen(own: Stack, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xf8" * 16))
    for name, value in own.environment.items():
        monkeypatch.setenv(name, value)
    broker = Kafka(Settings())
    broker.install()
    broker.prepare()
    assert "cluster.id=-Pj4" in (own.home / "kafka" / "data" / "meta.properties").read_text()
