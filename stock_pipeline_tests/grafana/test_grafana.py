"""The project's provisioning in a real Grafana."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from stock_pipeline.errors import SettingsError
from stock_pipeline.local.component import free_port
from stock_pipeline.local.grafana import find_grafana, grafana_command, grafana_environment
from stock_pipeline.settings import Settings, load_settings
from stock_pipeline_tests.conftest import eventually
from stock_pipeline_tests.grafana.test_dashboards import dashboards, load, nested

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def grafana(product: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    home = find_grafana(product)
    if home is None:
        pytest.skip("no Grafana: GRAFANA_HOME is not set, and there is no grafana on PATH")
    folder, port = tmp_path_factory.mktemp("grafana"), free_port()
    environment = grafana_environment(product.model_copy(update={"grafana_port": port}))
    environment |= {"GF_PATHS_DATA": str(folder), "GF_PATHS_PLUGINS": str(folder / "plugins")}
    log = folder / "grafana.log"
    with (
        log.open("w") as output,
        subprocess.Popen(grafana_command(home), env=environment, stdout=output, stderr=output) as server,
    ):
        address = f"http://localhost:{port}"
        try:
            eventually(lambda: is_healthy(address), 90)
            yield address
        finally:
            server.terminate()
            server.wait(timeout=30)
            print(log.read_text())


def is_healthy(address: str) -> bool:
    try:
        return get(f"{address}/api/health")["database"] == "ok"
    except URLError:
        return False


def get(url: str, body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=30) as answer:
        return json.load(answer)


@pytest.mark.parametrize("path", dashboards(), ids=lambda path: path.stem)
def test_the_dashboards_are_there_and_their_panels_answer(grafana: str, path: Path):
    uid = load(path)["uid"]
    dashboard = get(f"{grafana}/api/dashboards/uid/{uid}")
    assert dashboard["meta"]["provisioned"]
    assert not dashboard["meta"]["canSave"]
    for node in nested(dashboard["dashboard"]["panels"]):
        if "rawSql" not in node:
            continue
        statement = node["rawSql"].replace("${symbol:sqlstring}", "'BINANCE:BTCUSDT'")
        statement = statement.replace("${interval:sqlstring}", "'5m'").replace("$window", "30")
        answer = get(
            f"{grafana}/api/ds/query",
            {"from": "now-1h", "to": "now", "queries": [{**node, "rawSql": statement, "maxDataPoints": 1000}]},
        )
        assert answer["results"]["A" if node["refId"] == "A" else node["refId"]]["status"] == 200


def test_whoever_looks_cannot_edit(grafana: str):
    with pytest.raises(HTTPError, match="403"):
        get(f"{grafana}/api/dashboards/db", {"dashboard": {"title": "mine"}, "overwrite": True})


def test_the_database_is_asked_as_the_reader(grafana: str):
    statement = {
        "refId": "A",
        "datasource": {"uid": "timescaledb"},
        "format": "table",
        "rawQuery": True,
        "rawSql": "SELECT current_user::text",
    }
    answer = get(f"{grafana}/api/ds/query", {"from": "now-1h", "to": "now", "queries": [statement]})
    assert answer["results"]["A"]["frames"][0]["data"]["values"] == [["stocks_reader"]]


def test_a_folder_that_is_no_grafana_is_named(tmp_path: Path):
    settings = load_settings().model_copy(update={"grafana_home": tmp_path})
    with pytest.raises(SettingsError, match=f"grafana_home: {tmp_path} is no unpacked Grafana"):
        find_grafana(settings)


def test_without_grafana_there_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    settings = load_settings().model_copy(update={"grafana_home": None})
    assert find_grafana(settings) is None
