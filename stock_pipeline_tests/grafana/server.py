"""A real Grafana with the project's provisioning, questions to it, and a look at its pages."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from stock_pipeline.local.component import free_port
from stock_pipeline.local.grafana import FOLDER, grafana_environment
from stock_pipeline.settings import Settings
from stock_pipeline_tests.conftest import eventually

OF_ITSELF = re.compile("Skipping migration|elevated privileges|skipped registering status sub-resource")
"""What it warns of whenever its own database is new, or a test runs as root."""

PAGE_SECONDS = 15
"""What a page has to load, of the browser's own time."""


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


@dataclass
class Grafana:
    """A running server."""

    address: str
    log: Path

    def ask(self, path: str, body: object = None) -> Any:
        return ask(self.address + path, body)

    def query(self, targets: Sequence[Any], begin: str = "now-1h") -> dict[str, Any]:
        """What a panel gets, by the targets' names."""
        queries = [{**target, "maxDataPoints": 1000} for target in targets]
        return self.ask("/api/ds/query", {"from": begin, "to": "now", "queries": queries})["results"]

    def complaints(self) -> list[str]:
        """Lines of its log that are warnings or errors."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if "level=info" not in line and not OF_ITSELF.search(line)]


@contextmanager
def grafana_server(command: Sequence[str], settings: Settings, folder: Path) -> Iterator[Grafana]:
    """The server with a copy of the project's files, in which alerts do not wait, and with data in `folder`."""
    port = free_port()
    files = folder / "files"
    shutil.copytree(FOLDER, files)
    alerting = files / "provisioning" / "alerting"
    for path, slow, quick in (
        ("rules", r"(interval|for): \w+", r"\1: 10s"),
        ("policies", r"(group_\w+): \d\w+", r"\1: 1s"),
    ):
        text = (alerting / f"{path}.yaml").read_text()
        (alerting / f"{path}.yaml").write_text(re.sub(slow, quick, text))
    home = settings.model_copy(update={"grafana_port": port, "home": folder})
    environment = grafana_environment(settings.model_copy(update={"grafana_port": port})) | {
        name: value for name, value in grafana_environment(home).items() if name.startswith("GF_PATHS")
    }
    environment |= {
        "STOCK_PIPELINE_DASHBOARDS": str(files / "dashboards"),
        "GF_PATHS_PROVISIONING": str(files / "provisioning"),
    }
    log = folder / "grafana.log"
    with (
        log.open("w") as output,
        subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output) as server,
    ):
        grafana = Grafana(f"http://localhost:{port}", log)
        try:
            eventually(lambda: is_healthy(grafana.address), 120)
            yield grafana
        finally:
            server.terminate()
            server.wait(timeout=30)
            print(log.read_text())


@dataclass
class Page:
    """What a browser has made of a page."""

    panels: list[str]
    """Titles of those that it shows."""
    errors: list[str]
    """Titles of those that show an error."""


def page(browser: str, url: str, folder: Path) -> Page:
    """Open a dashboard in headless Chromium, high enough for all of its panels."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,4000"]
    command += [f"--virtual-time-budget={PAGE_SECONDS * 1000}", f"--user-data-dir={folder}", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    titles = re.findall(r'data-testid="data-testid Panel header ([^"]*)"', done.stdout)
    sections = re.split(r'data-testid="data-testid Panel header ', done.stdout)[1:]
    broken = [
        section.split('"')[0] for section in sections if 'data-testid="data-testid Panel status error"' in section
    ]
    return Page([unescape(title) for title in titles], [unescape(title) for title in broken])
