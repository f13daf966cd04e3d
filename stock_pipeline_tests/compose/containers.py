"""The services of docker-compose.yml as processes of this machine, without Docker.

Only hosts, ports and paths of the containers are replaced by this machine's.
"""

import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.local.component import free_port
from stock_pipeline_tests.compose import compose_file
from stock_pipeline_tests.compose.compose_file import environment, one_shots, probe, words
from stock_pipeline_tests.conftest import Stack, eventually

LOCALHOST = "127.0.0.1"

PATIENCE = 180.0
"""Seconds from the start of a service to its health."""

KEPT = ("PATH", "HOME", "XDG_CACHE_HOME", "JAVA_HOME")
"""What a process gets of the tests' environment: the place of what the image has installed."""

MASTER_PAGES = r"\b8080\b"
"""The port of the Spark master's pages in the file."""


@dataclass
class Containers:
    """The services of docker-compose.yml as processes of this machine."""

    stack: Stack
    folder: Path
    variables: Mapping[str, str] = field(repr=False, default_factory=lambda: compose_file.SECRETS)
    running: dict[str, list[psutil.Popen]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.places = places(self.stack, self.folder)

    def services(self, number: int = 1) -> dict[str, Any]:
        """The file as it reads here; `number` counts the containers of a service that has several."""
        places = self.places | {r"\b8081\b": str(free_port()), "/tmp/spark": str(self.folder / f"spark-{number}")}
        text = compose_file.PATH.read_text()
        for pattern, value in places.items():
            text = re.sub(pattern, value, text)
        return compose_file.load(self.variables, text)

    def start(self, name: str) -> None:
        """Start all containers of a service and wait until they are healthy, or have done what they are for."""
        for number in range(1, int(self.services()[name].get("scale", 1)) + 1):
            service = self.services(number)[name]
            process = self._start(name, number, service)
            if name in one_shots(self.services()):
                assert process.wait(PATIENCE) == 0
            else:
                eventually(lambda service=service, process=process: self._is_healthy(service, process), PATIENCE)

    def start_cluster(self) -> Mapping[str, str]:
        """Start Spark's master and workers; the settings of an application that runs on them."""
        for name in ("spark-master", "spark-worker"):
            self.start(name)
        application = environment(self.services()["code-server"])
        return {name: value for name, value in application.items() if name.startswith("SPARK_")}

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
    """For hosts, ports and paths of containers, as patterns, those of this machine; so is workspace.yaml written."""
    kafka = stack.kafka.rpartition(":")[2]
    code, *others = (str(free_port()) for _ in range(5))
    workspace = (PROJECT_ROOT / "workspace.yaml").read_text().replace("code-server", LOCALHOST).replace("4000", code)
    (folder / "workspace.yaml").write_text(workspace)
    ports = (r"\b9093\b", r"\b9094\b", r"\b7077\b", r"\b3001\b")
    return {
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
        r"\b4000\b": code,
        r"\b8765\b": stack.environment["SIMULATOR_PORT"],
        MASTER_PAGES: str(free_port()),
        **dict(zip(ports, others, strict=True)),
    }
