"""All services of docker-compose.yml, started in their order as processes of this machine.

Kafka is the embedded broker with the properties of the file, TimescaleDB the embedded server with its flags and its
script; Grafana has its own tests.
"""

import json
import os
import subprocess
from collections.abc import Callable
from graphlib import TopologicalSorter

import pytest

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.local import kafka, timescaledb
from stock_pipeline.settings import Settings
from stock_pipeline_tests.compose.compose_file import environment, words
from stock_pipeline_tests.compose.containers import LOCALHOST, Containers


def start_all(containers: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = containers.stack
    settings = Settings(
        stock_pipeline_home=stack.home,
        kafka_bootstrap_servers=stack.kafka,
        db_url=stack.environment["DB_URL"],
        stack="embedded",
    )
    servers: dict[str, Callable[[], None]] = {
        "kafka": lambda: _start_kafka(containers, settings, monkeypatch),
        "timescaledb": lambda: _start_timescaledb(containers, settings, monkeypatch),
        "grafana": lambda: None,
    }
    wanted = {name: service.get("depends_on", {}) for name, service in containers.services().items()}
    for name in TopologicalSorter(wanted).static_order():
        servers.get(name, lambda name=name: containers.start(name))()


def _start_kafka(containers: Containers, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded broker, with the properties that the container makes of its environment."""
    variables = environment(containers.services()["kafka"])
    properties = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in variables.items()
        if name != "KAFKA_HEAP_OPTS"
    }
    text = "".join(f"{name}={value}\n" for name, value in properties.items())
    monkeypatch.setattr(kafka.Kafka, "_render_properties", lambda _: text)
    monkeypatch.setattr(kafka, "JVM", variables["KAFKA_HEAP_OPTS"].split())
    kafka.Kafka(settings).start()


def _start_timescaledb(containers: Containers, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded server, with the container's flags; its owner is made by the container's script."""
    service = containers.services()["timescaledb"]
    flags = dict(word.split("=") for word in words(service["command"]) if "=" in word)
    monkeypatch.setattr(
        timescaledb,
        "SERVER_SETTINGS",
        flags | {"shared_preload_libraries": "timescaledb", "unix_socket_directories": ""},
    )
    server = timescaledb.TimescaleDB(settings)
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
