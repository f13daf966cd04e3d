"""Questions to a running Grafana."""

import json
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen


def ask(url: str, body: object = None) -> Any:
    """The answer, of JSON; with a body it is a POST."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=30) as answer:
        return json.load(answer)


def is_healthy(address: str) -> bool:
    try:
        return ask(f"{address}/api/health")["database"] == "ok"
    except URLError:
        return False
