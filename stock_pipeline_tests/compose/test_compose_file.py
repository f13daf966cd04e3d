"""docker-compose.yml: what it promises, and that Docker Compose itself reads it as these tests do."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stock_pipeline import PROJECT_ROOT, __version__
from stock_pipeline.local.docker import PASSED_ON
from stock_pipeline.local.docker import SECRETS as GENERATED
from stock_pipeline.local.grafana import grafana_environment
from stock_pipeline.settings import Settings
from stock_pipeline_tests.compose import compose_file
from stock_pipeline_tests.compose.compose_file import PATH, SECRETS, VARIABLE, environment, one_shots, probe, words

SERVICES = compose_file.load()

CLUSTER = ("SPARK_WORKERS", "SPARK_CORES_PER_STREAM")

MEGABYTES = {"m": 1, "g": 1024}

LAPTOP_MEGABYTES = 8 * 1024
LAPTOP_PROCESSORS = 8

by_name = pytest.mark.parametrize("name", SERVICES)


@by_name
def test_every_image_is_pinned(name: str):
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+(-\w+)?", SERVICES[name]["image"])


def test_the_image_of_our_own_is_pinned_and_has_our_version():
    assert re.search(r"^FROM python:\d+\.\d+\.\d+-slim-\w+$", (PROJECT_ROOT / "Dockerfile").read_text(), re.MULTILINE)
    built = {service["image"] for service in SERVICES.values() if "build" in service}
    assert built == {f"stock-pipeline:{__version__}"}


def test_kafka_is_the_version_of_the_embedded_one():
    [version] = re.findall(
        r"kafka_2\.13-([\d.]+)\.jar", (PROJECT_ROOT / "stock_pipeline/local/jars.sha256").read_text()
    )
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version}"


@by_name
def test_every_service_is_checked_restarted_and_waits_for_health(name: str):
    service = SERVICES[name]
    if name in one_shots(SERVICES):
        assert service["restart"] == "no"
    else:
        assert service["restart"] == "unless-stopped"
        assert probe(service)
    for other, wanted in service.get("depends_on", {}).items():
        ended = other in one_shots(SERVICES)
        assert wanted["condition"] == ("service_completed_successfully" if ended else "service_healthy")


@by_name
def test_every_port_is_open_to_this_machine_only(name: str):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


def test_workers_can_be_many():
    worker = SERVICES["spark-worker"]
    assert worker["scale"] == "2"
    assert "container_name" not in worker and "ports" not in worker


@by_name
def test_no_secret_has_a_value_here(name: str):
    written = yaml.safe_load(PATH.read_text())["services"][name].get("environment", {})
    for variable, value in written.items():
        if variable.endswith("PASSWORD"):
            assert re.fullmatch(r"\$\{\w+:\?run make up .*\}", value), variable
        if variable.endswith(("TOKEN", "WEBHOOK_URL")):
            assert re.fullmatch(r"\$\{\w+:-(http://localhost)?\}", value), variable


def test_every_variable_is_a_secret_that_is_generated_or_a_setting_that_is_passed_on():
    variables = {found["name"] for found in VARIABLE.finditer(PATH.read_text())}
    assert set(SECRETS) == set(GENERATED)
    assert variables == {*GENERATED, *(name.upper() for name in PASSED_ON), *CLUSTER}


def test_limits_fit_a_laptop():
    """Everything that runs for long, the simulator too; the one-shot ends before the rest starts."""
    running = [service for name, service in SERVICES.items() if name not in one_shots(SERVICES)]
    memory = [int(service["mem_limit"][:-1]) * MEGABYTES[service["mem_limit"][-1]] for service in running]
    scales = [int(service.get("scale", 1)) for service in running]
    assert sum(scale * limit for scale, limit in zip(scales, memory, strict=True)) <= LAPTOP_MEGABYTES
    assert sum(scale * service["cpus"] for scale, service in zip(scales, running, strict=True)) <= LAPTOP_PROCESSORS


def test_grafana_is_told_what_run_tells_it():
    ours, theirs = grafana_environment(Settings()), environment(SERVICES["grafana"])
    # Right in the image as they are.
    image = {"GF_PATHS_DATA", "GF_PATHS_PLUGINS", "GF_PATHS_LOGS", "GF_SERVER_HTTP_ADDR", "GF_SERVER_HTTP_PORT"}
    assert set(theirs) == set(ours) - image
    options = {name for name in theirs if name.startswith("GF_") and "PATH" not in name}
    assert {name: theirs[name] for name in options} == {name: ours[name] for name in options}


def compose(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What Docker Compose's own loader makes of the file."""
    program = os.environ.get("COMPOSE_CHECK")
    if not program:
        pytest.skip(
            "COMPOSE_CHECK is not set: a program that prints a compose file as Docker Compose loads it, as JSON"
        )
    environment = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), **variables}
    return subprocess.run([program, PATH.name], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True)


def test_docker_compose_reads_what_these_tests_read():
    done = compose(SECRETS)
    assert done.returncode == 0, done.stdout
    loaded: dict[str, Any] = json.loads(done.stdout)["services"]
    assert set(loaded) == set(SERVICES)
    for name, service in SERVICES.items():
        assert loaded[name].get("command") == (words(service["command"]) if "command" in service else None)
        assert loaded[name].get("environment", {}) == environment(service)
        if "healthcheck" in service:
            test = loaded[name]["healthcheck"]["test"]
            assert (["/bin/sh", "-c", *test[1:]] if test[0] == "CMD-SHELL" else test[1:]) == probe(service)


@pytest.mark.parametrize("missing", SECRETS)
def test_docker_compose_names_a_missing_secret_and_what_to_do(missing: str):
    done = compose({name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert f"required variable {missing} is missing a value: run make up" in done.stdout
