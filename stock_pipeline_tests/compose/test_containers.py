"""docker-compose.yml at work, without Docker: every service's own command, environment and health check, as processes.

Only hosts, ports and paths of the containers are replaced by this machine's. Kafka is the embedded broker with the
properties of the file, TimescaleDB the embedded server with its flags and its script; Grafana has its own tests.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.local import timescaledb
from stock_pipeline.local.kafka import Kafka
from stock_pipeline.local.timescaledb import TimescaleDB
from stock_pipeline.services.service import Heartbeat
from stock_pipeline.settings import Settings
from stock_pipeline_tests.compose import compose_file
from stock_pipeline_tests.compose.compose_file import environment, one_shots, probe, words
from stock_pipeline_tests.conftest import Stack, eventually, free_port

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

LOCALHOST = "127.0.0.1"

PATIENCE = 180.0
"""Seconds from the start of a service to its health."""

KEPT = ("PATH", "HOME", "XDG_CACHE_HOME", "JAVA_HOME")
"""What a process gets of the tests' environment: the place of what the image has installed."""

MASTER = r"\b8080\b"
"""The port of the Spark master's pages in the file."""

SERVICES = ("producer", "tick-stream", "ohlcv-stream")


@dataclass
class Containers:
    """The services of docker-compose.yml as processes of this machine."""

    stack: Stack
    folder: Path
    places: dict[str, str]
    variables: Mapping[str, str] = field(repr=False, default_factory=lambda: compose_file.SECRETS)
    running: dict[str, list[psutil.Popen]] = field(default_factory=dict)

    def services(self, number: int = 1) -> dict[str, Any]:
        """The file as it reads here; `number` counts the containers of a service that has several."""
        places = self.places | {r"\b8081\b": str(free_port()), "/tmp/spark": str(self.folder / f"spark-{number}")}
        text = compose_file.PATH.read_text()
        for pattern, value in places.items():
            text = re.sub(pattern, value, text)
        return compose_file.load(self.variables, text)

    def start(self, name: str) -> None:
        """Start all containers of a service and wait until they are healthy, or have done what they are for."""
        for number in range(1, self.services()[name].get("scale", 1) + 1):
            service = self.services(number)[name]
            process = self._start(name, number, service)
            if name in one_shots(self.services()):
                assert process.wait(PATIENCE) == 0
            else:
                eventually(lambda service=service, process=process: self._is_healthy(service, process), PATIENCE)

    def _start(self, name: str, number: int, service: Mapping[str, Any]) -> psutil.Popen:
        for volume in service.get("volumes", ()):
            source, target, *_ = volume.split(":")
            if source.startswith("./"):
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(PROJECT_ROOT / source, target)
        with (self.folder / f"{name}-{number}.log").open("ab") as log:
            process = psutil.Popen(
                words(service["command"]),
                cwd=PROJECT_ROOT,
                env=self._environment(service),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.setdefault(name, []).append(process)
        return process

    def _is_healthy(self, service: Mapping[str, Any], process: psutil.Popen) -> bool:
        assert process.poll() is None
        return subprocess.run(probe(service), env=self._environment(service), capture_output=True).returncode == 0

    @staticmethod
    def _environment(service: Mapping[str, Any]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        kept["PATH"] = f"{sysconfig.get_path('scripts')}:{kept['PATH']}"
        # A container's own address.
        return {**kept, "SPARK_LOCAL_IP": LOCALHOST, **environment(service)}

    def stop(self, name: str) -> list[int]:
        """Exit codes, as Docker stops a container: SIGTERM, and SIGKILL at the end of its grace."""
        grace = self.services()[name].get("stop_grace_period", "10s")
        codes = []
        for process in self.running.pop(name):
            process.send_signal(signal.SIGTERM)
            codes.append(process.wait(int(grace.removesuffix("s"))))
        return codes

    def kill(self) -> None:
        for process in [process for group in self.running.values() for process in group]:
            if process.poll() is None:
                family = [*process.children(recursive=True), process]
                for member in family:
                    member.kill()
                psutil.wait_procs(family, timeout=10)


def places(stack: Stack, folder: Path) -> dict[str, str]:
    """For hosts, ports and paths of containers, those of this machine."""
    kafka = stack.kafka.rpartition(":")[2]
    (folder / "workspace.yaml").write_text((PROJECT_ROOT / "workspace.yaml").read_text())
    found = {
        "/var/lib/stock_pipeline": str(stack.home),
        "/var/lib/kafka": str(stack.home / "kafka"),
        "/opt/stock_pipeline": str(PROJECT_ROOT),
        "/tmp/stock_pipeline": str(folder / "simulator"),
        r"workspace\.yaml": str(folder / "workspace.yaml"),
        r"//(kafka|timescaledb|spark-master|simulator|localhost|):(?=\d)": f"//{LOCALHOST}:",
        "kafka:9092": f"{LOCALHOST}:{kafka}",
        r"--host spark-master|--host 0\.0\.0\.0": f"--host {LOCALHOST}",
        "(?<=HOST: )timescaledb|(?<=HOSTNAME: )code-server": LOCALHOST,
        r"\b9092\b": kafka,
        r"\b5432\b": str(stack.database_port),
    }
    found |= {rf"\b{port}\b": str(free_port()) for port in (9093, 9094, 7077, 8080, 4000, 3001)}
    found[r"\b8765\b"] = stack.environment["SIMULATOR_PORT"]
    text = (folder / "workspace.yaml").read_text().replace("code-server", LOCALHOST)
    (folder / "workspace.yaml").write_text(text.replace("4000", found[r"\b4000\b"]))
    return found


@pytest.fixture
def containers(own: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Containers]:
    folder = tmp_path / "containers"
    folder.mkdir()
    containers = Containers(own, folder, places(own, folder))
    yield containers
    for log in sorted(folder.glob("*.log")):
        print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-40:], sep="\n")
    containers.kill()


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
    with urlopen(f"http://{LOCALHOST}:{containers.places[MASTER]}/json/", timeout=10) as answer:
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
