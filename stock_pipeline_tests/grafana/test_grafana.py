"""The project's provisioning in a real Grafana."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest

from stock_pipeline.errors import SettingsError
from stock_pipeline.local.component import free_port
from stock_pipeline.local.grafana import grafana_command, grafana_environment
from stock_pipeline.settings import Settings, load_settings
from stock_pipeline_tests.conftest import eventually
from stock_pipeline_tests.grafana.server import ask, is_healthy
from stock_pipeline_tests.grafana.test_dashboards import dashboards, load, nested, with_variables

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def grafana(product: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    command = grafana_command(product)
    if command is None:
        pytest.skip("no Grafana: GRAFANA_HOME is not set, and there is no grafana on PATH")
    folder, port = tmp_path_factory.mktemp("grafana"), free_port()
    environment = grafana_environment(product.model_copy(update={"grafana_port": port}))
    environment |= {"GF_PATHS_DATA": str(folder), "GF_PATHS_PLUGINS": str(folder / "plugins")}
    log = folder / "grafana.log"
    with (
        log.open("w") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output) as server,
    ):
        address = f"http://localhost:{port}"
        try:
            eventually(lambda: is_healthy(address), 90)
            yield address
        finally:
            server.terminate()
            server.wait(timeout=30)
            print(log.read_text())


@pytest.mark.parametrize("path", dashboards(), ids=lambda path: path.stem)
def test_the_dashboards_are_there_and_their_panels_answer(grafana: str, path: Path):
    uid = load(path)["uid"]
    dashboard = ask(f"{grafana}/api/dashboards/uid/{uid}")
    assert dashboard["meta"]["provisioned"]
    assert not dashboard["meta"]["canSave"]
    for node in nested(dashboard["dashboard"]["panels"]):
        if "rawSql" not in node:
            continue
        statement = with_variables(node["rawSql"], symbol="BINANCE:BTCUSDT", interval="5m", window="30")
        answer = ask(
            f"{grafana}/api/ds/query",
            {"from": "now-1h", "to": "now", "queries": [{**node, "rawSql": statement, "maxDataPoints": 1000}]},
        )
        assert answer["results"][node["refId"]]["status"] == 200


def test_whoever_looks_cannot_edit(grafana: str):
    with pytest.raises(HTTPError, match="403"):
        ask(f"{grafana}/api/dashboards/db", {"dashboard": {"title": "mine"}, "overwrite": True})


def test_the_database_is_asked_as_the_reader(grafana: str):
    statement = {
        "refId": "A",
        "datasource": {"uid": "timescaledb"},
        "format": "table",
        "rawQuery": True,
        "rawSql": "SELECT current_user::text",
    }
    answer = ask(f"{grafana}/api/ds/query", {"from": "now-1h", "to": "now", "queries": [statement]})
    assert answer["results"]["A"]["frames"][0]["data"]["values"] == [["stocks_reader"]]


def test_a_folder_that_is_no_grafana_is_named(tmp_path: Path):
    settings = load_settings().model_copy(update={"grafana_home": tmp_path})
    with pytest.raises(SettingsError, match=f"grafana_home: {tmp_path} is no unpacked Grafana"):
        grafana_command(settings)


def test_without_grafana_there_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    settings = load_settings().model_copy(update={"grafana_home": None})
    assert grafana_command(settings) is None
