"""docker-compose.yml at work, without Docker: every service's own command, environment and health check, as processes.

Kafka is the embedded broker with the properties of the file, TimescaleDB the embedded server with its flags and its
script; Grafana has its own tests.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.local import timescaledb
from stock_pipeline.local.kafka import Kafka
from stock_pipeline.local.timescaledb import TimescaleDB
from stock_pipeline.services.service import Heartbeat
from stock_pipeline.settings import Settings
from stock_pipeline_tests.compose.compose_file import environment, words
from stock_pipeline_tests.compose.containers import LOCALHOST, MASTER_PAGES, Containers
from stock_pipeline_tests.conftest import Stack, eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

SERVICES = ("producer", "tick-stream", "ohlcv-stream")


@pytest.fixture
def containers(own: Stack, tmp_path: Path) -> Iterator[Containers]:
    containers = Containers(own, tmp_path / "containers")
    yield containers
    containers.kill()
    for log in sorted(containers.folder.glob("*.log")):
        print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-40:], sep="\n")


def start_kafka(containers: Containers, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded broker, with the properties that the container makes of its environment."""
    variables = environment(containers.services()["kafka"])
    properties = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in variables.items()
        if name != "KAFKA_HEAP_OPTS"
    }
    text = "".join(f"{name}={value}\n" for name, value in properties.items())
    monkeypatch.setattr(Kafka, "_render_properties", lambda _: text)
    Kafka(settings).start()


def start_timescaledb(containers: Containers, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server, with the container's flags; its owner is made by the container's script."""
    service = containers.services()["timescaledb"]
    flags = dict(word.split("=") for word in words(service["command"]) if "=" in word)
    monkeypatch.setattr(
        timescaledb,
        "SERVER_SETTINGS",
        flags | {"shared_preload_libraries": "timescaledb", "unix_socket_directories": ""},
    )
    server = TimescaleDB(settings)
    [script] = [volume.split(":")[0] for volume in service["volumes"] if "initdb.d" in volume]

    def create_owner() -> None:
        passwords = json.loads(settings.credentials_path.read_text())
        client = {"PGHOST": LOCALHOST, "PGPORT": str(containers.stack.database_port), "PGDATABASE": "postgres"}
        client |= {"PGPASSWORD": passwords["superuser"], "DB_PASSWORD": passwords["owner"], "POSTGRES_USER": "postgres"}
        path = f"{server._program('psql').parent}:{os.environ['PATH']}"
        subprocess.run([PROJECT_ROOT / script], env={"PATH": path, **client}, check=True)

    monkeypatch.setattr(server, "on_healthy", create_owner)
    server.start()
    passwords = json.loads(settings.credentials_path.read_text())
    containers.variables = {f"DB_{role.upper()}_PASSWORD": password for role, password in passwords.items()}
    simulator = f"ws://{LOCALHOST}:{containers.stack.environment['SIMULATOR_PORT']}"
    containers.variables |= {"DB_PASSWORD": passwords["owner"], "FINNHUB_URL": simulator}


def master(containers: Containers) -> dict[str, Any]:
    with urlopen(f"http://{LOCALHOST}:{containers.places[MASTER_PAGES]}/json/", timeout=10) as answer:
        return json.load(answer)


def heartbeat(stack: Stack, service: str) -> Heartbeat | None:
    return Heartbeat.read(stack.home / "run" / f"{service}.json")


def test_the_pipeline_runs_as_the_file_says(containers: Containers, own: Stack, monkeypatch: pytest.MonkeyPatch):
    settings = Settings(
        stock_pipeline_home=own.home,
        kafka_bootstrap_servers=own.kafka,
        db_url=own.environment["DB_URL"],
        stack="embedded",
    )
    servers: dict[str, Callable[[], None]] = {
        "kafka": lambda: start_kafka(containers, settings, monkeypatch),
        "timescaledb": lambda: start_timescaledb(containers, settings, monkeypatch),
        "grafana": lambda: None,
    }
    wanted = {name: service.get("depends_on", {}) for name, service in containers.services().items()}
    for name in TopologicalSorter(wanted).static_order():
        servers.get(name, lambda name=name: containers.start(name))()

    # Ticks and bars arrive, through the two workers of the cluster.
    eventually(lambda: own.query("SELECT count(*) FROM tick_data")[0][0], 240)
    eventually(lambda: own.query("SELECT count(*) FROM ohlcv_data")[0][0], 120)
    cluster = master(containers)
    assert {(app["name"], app["cores"]) for app in cluster["activeapps"]} == {("tick-stream", 1), ("ohlcv-stream", 1)}
    assert [(worker["state"], worker["coresused"]) for worker in cluster["workers"]] == [("ALIVE", 1)] * 2
    assert [heartbeat(own, name).state for name in SERVICES] == ["running"] * 3

    # Dagster supervises them, or would start them again.
    for name in SERVICES:
        lock = own.home / "run" / f"{name}-supervisor.lock"
        eventually(lambda lock=lock: subprocess.run(["flock", "--nonblock", lock, "true"]).returncode, 120)

    # The end of the code server's container is a clean end of what its runs started.
    beats = {name: heartbeat(own, name) for name in SERVICES}
    for name in ("daemon", "webserver", "code-server"):
        codes = containers.stop(name)
        print(f"{name} ended with {codes}")
    assert codes == [0]
    assert not any(beat.is_alive() for beat in beats.values())
    assert [heartbeat(own, name).state for name in SERVICES] == ["stopped"] * 3
    eventually(lambda: not master(containers)["activeapps"])
