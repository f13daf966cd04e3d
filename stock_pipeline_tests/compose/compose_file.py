"""docker-compose.yml as Docker Compose reads it, as far as this project's file goes."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from stock_pipeline import PROJECT_ROOT

PATH = PROJECT_ROOT / "docker-compose.yml"

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<kind>:-|:\?|:\+)(?P<rest>[^}]*)\}")

SECRETS = {
    "DB_SUPERUSER_PASSWORD": "of postgres",
    "DB_PASSWORD": "of the owner",
    "DB_WRITER_PASSWORD": "of the writer",
    "DB_READER_PASSWORD": "of the reader",
}
"""Every secret that the file asks for, with a value."""


def load(variables: Mapping[str, str] = SECRETS, text: str | None = None) -> dict[str, Any]:
    """The file's services, with anchors and variables resolved.

    Raises:
        KeyError: a variable that has to be set is not.
    """
    return _interpolate(yaml.safe_load(text or PATH.read_text()), variables)["services"]


def _interpolate(node: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolate(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolate(value, variables) for value in node]
    return VARIABLE.sub(lambda found: _value(found, variables), node) if isinstance(node, str) else node


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    value = variables.get(found["name"])
    if not value and found["kind"] == ":?":
        raise KeyError(found["name"], found["rest"])
    if found["kind"] == ":+":
        return found["rest"] if value else ""
    return value or found["rest"]


def words(command: str | list[str]) -> list[str]:
    """A service's command, as the container starts it."""
    return shlex.split(command) if isinstance(command, str) else command


def probe(service: Mapping[str, Any]) -> list[str]:
    """The command of a service's health check."""
    test = service["healthcheck"]["test"]
    return ["/bin/sh", "-c", test] if isinstance(test, str) else test[1:]


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def one_shots(services: Mapping[str, Any]) -> set[str]:
    """What others wait for to end rather than to be healthy."""
    return {
        name
        for service in services.values()
        for name, wanted in service.get("depends_on", {}).items()
        if wanted["condition"] == "service_completed_successfully"
    }
