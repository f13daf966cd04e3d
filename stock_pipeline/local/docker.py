"""The stack in containers: Docker Compose with docker-compose.yml, the settings and the secrets that it asks for."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping

from dotenv import dotenv_values
from pydantic import SecretStr

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.errors import InstallError, StartError
from stock_pipeline.services.supervisor import SERVICES
from stock_pipeline.settings import Settings

ENV_FILE = PROJECT_ROOT / ".env"

SECRETS = ("DB_SUPERUSER_PASSWORD", "DB_PASSWORD", "DB_WRITER_PASSWORD", "DB_READER_PASSWORD")

PASSED_ON = (
    "finnhub_token",
    "finnhub_url",
    "symbols",
    "kafka_topic",
    "kafka_retention_days",
    "spool_limit_mb",
    "bar_eligibility",
    "alert_webhook_url",
    "db_size_alert_gb",
    "tick_retention_days",
    "webserver_port",
    "grafana_port",
)
"""The settings that docker-compose.yml reads, so that those of config.json reach the containers, too."""

SIMULATOR_URL = "ws://simulator:8765"

ALL = ("--profile", "*")
"""With the simulator, whether it is wanted now or was before."""


def up(settings: Settings) -> None:
    """Build the image, start all containers and wait until they are healthy.

    Raises:
        InstallError: there is no docker.
        StartError: Docker Compose failed, and said why.
    """
    complete_secrets()
    profile = ["--profile", "demo"] if settings.uses_simulator else []
    _compose(settings, *profile, "up", "--build", "--detach", "--wait")


def down(settings: Settings, wipe: bool) -> None:
    """Stop and remove all containers.

    Args:
        wipe: delete their data, too.
    """
    _compose(settings, *ALL, "down", *(["--volumes"] if wipe else []))


def status(settings: Settings, as_json: bool) -> None:
    _compose(settings, *ALL, "ps", "--all", *(["--format", "json"] if as_json else []))


def logs(settings: Settings, name: str, lines: int) -> None:
    """Print the end of the log of a container, or of a service that runs in the code server's."""
    if name in SERVICES:
        _compose(settings, "exec", "--no-TTY", "code-server", "stock-pipeline", "logs", name, "--lines", str(lines))
    else:
        _compose(settings, *ALL, "logs", "--tail", str(lines), name)


def complete_secrets() -> None:
    """Add a generated value to .env for each secret that neither it nor the environment has; keep .env private."""
    known = {**dotenv_values(ENV_FILE), **os.environ}
    missing = [name for name in SECRETS if not known.get(name)]
    if not missing:
        return
    descriptor = os.open(ENV_FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        os.fchmod(descriptor, 0o600)
        separator = "\n" if file.read()[-1:] not in ("", "\n") else ""
        file.write(separator + "".join(f"{name}={secrets.token_urlsafe(24)}\n" for name in missing))


def _compose(settings: Settings, *arguments: str) -> None:
    program = shutil.which("docker")
    if program is None:
        raise InstallError(
            "stack is docker, and there is no docker on PATH: install Docker Engine with its Compose plugin, or unset "
            "STACK for the embedded stack"
        )
    command = [program, "compose", *arguments]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env={**os.environ, **passed_on(settings)})
    if done.returncode != 0:
        raise StartError(f"docker compose {' '.join(arguments)} ended with exit code {done.returncode}; see above")


def passed_on(settings: Settings) -> Mapping[str, str]:
    """Environment variables for docker-compose.yml."""
    values = {name: getattr(settings, name) for name in PASSED_ON}
    if settings.uses_simulator:
        values["finnhub_url"] = SIMULATOR_URL
    return {name.upper(): _text(value) for name, value in values.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)
