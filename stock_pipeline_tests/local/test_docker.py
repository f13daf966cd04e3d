"""STACK=docker: what Docker Compose is asked for, with a docker on PATH that notes it, and the secrets."""

import json
import os
import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values
from typer.testing import CliRunner

from stock_pipeline.cli import app
from stock_pipeline.local import docker
from stock_pipeline.settings import load_settings

DOCKER = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["NOTES"], "a") as notes:
    print(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)}), file=notes)
sys.exit(int(os.environ.get("DOCKER_FAILS", 0)))
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(DOCKER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("STACK", "docker")
    for name in (*docker.SECRETS, *(name.upper() for name in docker.PASSED_ON)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(docker, "ENV_FILE", tmp_path / ".env")
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def run(*arguments: str, code: int = 0) -> str:
    load_settings.cache_clear()
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done.output


def asked(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the last docker."""
    note = json.loads((tmp_path / "notes").read_text().splitlines()[-1])
    return note["arguments"], note["environment"]


def test_without_a_token_up_starts_the_simulator(tmp_path: Path):
    run("up")
    arguments, environment = asked(tmp_path)
    assert arguments == ["compose", "--profile", "demo", "up", "--build", "--detach", "--wait"]
    assert environment["FINNHUB_URL"] == "ws://simulator:8765"


def test_settings_of_config_json_reach_the_containers(tmp_path: Path):
    config = {"finnhub_token": "c0ffee", "symbols": ["AAPL", "IC MARKETS:1"], "kafka_retention_days": 3}
    (tmp_path / "config.json").write_text(json.dumps(config))
    run("up")
    arguments, environment = asked(tmp_path)
    assert arguments == ["compose", "up", "--build", "--detach", "--wait"]
    assert environment["FINNHUB_TOKEN"] == "c0ffee"
    assert environment["SYMBOLS"] == "AAPL,IC MARKETS:1"
    assert environment["KAFKA_RETENTION_DAYS"] == "3"
    assert "FINNHUB_URL" not in environment


def test_up_generates_the_secrets_that_are_missing_and_keeps_the_rest(tmp_path: Path):
    path = tmp_path / ".env"
    path.write_text("SYMBOLS=AAPL\nDB_PASSWORD=mine\nDB_READER_PASSWORD=")
    path.chmod(0o644)
    run("up")
    first = dotenv_values(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (first["SYMBOLS"], first["DB_PASSWORD"]) == ("AAPL", "mine")
    generated = {first[name] for name in docker.SECRETS if name != "DB_PASSWORD"}
    assert len(generated) == 3
    assert min(len(value or "") for value in generated) >= 24
    run("up")
    assert dotenv_values(path) == first


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["down"], ["--profile", "*", "down"]),
        (["down", "--wipe"], ["--profile", "*", "down", "--volumes"]),
        (["status"], ["--profile", "*", "ps", "--all"]),
        (["status", "--json"], ["--profile", "*", "ps", "--all", "--format", "json"]),
        (["logs", "kafka"], ["--profile", "*", "logs", "--tail", "50", "kafka"]),
        (
            ["logs", "tick-stream", "--lines", "9"],
            ["exec", "--no-TTY", "code-server", "stock-pipeline", "logs", "tick-stream", "--lines", "9"],
        ),
    ],
)
def test_the_other_commands(tmp_path: Path, command: list[str], expected: list[str]):
    run(*command)
    assert asked(tmp_path)[0] == ["compose", *expected]


def test_a_failure_of_docker_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DOCKER_FAILS", "17")
    assert "docker compose --profile * down ended with exit code 17" in run("down", code=1)


def test_without_docker_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    output = run("up", code=1)
    assert "no docker on PATH" in output and "unset STACK" in output
