"""docker-compose.yml at work, without Docker: every service's own command, environment and health check."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from stock_pipeline.services.service import Heartbeat
from stock_pipeline_tests.compose.containers import LOCALHOST, MASTER_PAGES, Containers
from stock_pipeline_tests.compose.whole_file import start_all
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


def master(containers: Containers) -> dict[str, Any]:
    with urlopen(f"http://{LOCALHOST}:{containers.places[MASTER_PAGES]}/json/", timeout=10) as answer:
        return json.load(answer)


def heartbeat(stack: Stack, service: str) -> Heartbeat | None:
    return Heartbeat.read(stack.home / "run" / f"{service}.json")


def test_the_pipeline_runs_as_the_file_says(containers: Containers, own: Stack, monkeypatch: pytest.MonkeyPatch):
    start_all(containers, monkeypatch)

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
