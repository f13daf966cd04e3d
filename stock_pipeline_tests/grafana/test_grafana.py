"""The project's dashboards and alert rules in a real Grafana, on the real TimescaleDB, seen by its reader."""

import json
import shutil
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError

import psycopg
import pytest
from pydantic import SecretStr

from stock_pipeline.bars.rollups import ROLLUPS, refresh
from stock_pipeline.dashboards import Dashboard, dashboards, with_variables
from stock_pipeline.database import apply_file
from stock_pipeline.errors import SettingsError
from stock_pipeline.local.grafana import grafana_command
from stock_pipeline.settings import Settings, load_settings
from stock_pipeline_tests.conftest import eventually
from stock_pipeline_tests.grafana.server import Grafana, grafana_server, page
from stock_pipeline_tests.grafana.test_dashboards import INTERVALS, SYMBOL, rules

pytestmark = pytest.mark.stack

RANGES = ["now-1h", "now-6h", "now-30d"]

CANDLE = {"time": "time", "open": "number", "high": "number", "low": "number", "close": "number", "volume": "number"}

RULES = {rule["title"] for rule in rules()}


@pytest.fixture(scope="module")
def sent() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's address, and what Grafana has sent there."""
    messages: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/services/T0", messages
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def database(product: Settings) -> Iterator[psycopg.Connection]:
    """A day of bars of one symbol that trades, and one that does not; deleted at the end."""
    tables = ["ohlcv_data", *(rollup.table for rollup in ROLLUPS)]
    with psycopg.connect(product.conninfo("owner"), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO instrument VALUES (%s, 'crypto', '24/7', 525600), ('QUIET', 'stock', 'XNYS', 98280)", [SYMBOL]
        )
        connection.execute(
            "INSERT INTO ohlcv_data (timestamp, symbol, open, high, low, close, volume, trades, ticks, vwap, is_final) "
            "SELECT minute, %s, 10, 12, 9, 10 + random(), 1, 1, 1, 10, TRUE FROM "
            "generate_series(date_trunc('minute', now()) - INTERVAL '1 day', now(), '1 minute') AS minute",
            [SYMBOL],
        )
        for rollup in ROLLUPS:
            refresh(connection, rollup)
        yield connection
        for table in (*tables, "instrument"):
            connection.execute(f"DELETE FROM {table} WHERE symbol IN (%s, 'QUIET')", [SYMBOL])


def command(settings: Settings) -> Sequence[str]:
    found = grafana_command(settings)
    if found is None:
        pytest.skip("no Grafana: GRAFANA_HOME is not set, and there is no grafana on PATH")
    return found


@pytest.fixture(scope="module")
def grafana(
    product: Settings,
    database: psycopg.Connection,
    sent: tuple[str, list[dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Grafana]:
    settings = product.model_copy(update={"alert_webhook_url": SecretStr(sent[0])})
    with grafana_server(command(product), settings, tmp_path_factory.mktemp("grafana")) as server:
        yield server


def test_everything_is_loaded_and_nothing_is_complained_of(grafana: Grafana):
    assert grafana.ask("/api/datasources/uid/timescaledb/health")["status"] == "OK"
    for dashboard in dashboards():
        meta = grafana.ask(f"/api/dashboards/uid/{dashboard.uid}")["meta"]
        assert meta["provisioned"]
        assert not meta["canSave"]
    eventually(lambda: set(states(grafana)) == RULES, 60)
    assert grafana.complaints() == []


def fields(results: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Type of each field of all frames, and the number of its values."""
    found = {}
    for result in results.values():
        assert result["status"] == 200
        for frame in result["frames"]:
            for field, values in zip(frame["schema"]["fields"], frame["data"]["values"], strict=True):
                found[field["name"]] = (field["type"], len(values))
    return found


@pytest.mark.parametrize("begin", RANGES)
@pytest.mark.parametrize("symbol", [SYMBOL, "QUIET"])
@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.uid)
def test_panels_get_the_columns_that_their_type_needs(grafana: Grafana, dashboard: Dashboard, symbol: str, begin: str):
    if symbol == "QUIET" and not dashboard.variables:
        pytest.skip("nothing to choose")
    for panel in dashboard.panels:
        for interval in INTERVALS if "interval" in json.dumps(panel["targets"]) else INTERVALS[:1]:
            variables = {"symbol": symbol, "interval": interval, "window": "30"}
            targets = [{**t, "rawSql": with_variables(t["rawSql"], variables)} for t in panel["targets"]]
            got = fields(grafana.query(targets, begin))
            kinds, rows = {name: kind for name, (kind, _) in got.items()}, max((n for _, n in got.values()), default=0)
            assert rows <= 10_000
            of_symbol = "symbol}" in json.dumps(panel["targets"])
            if of_symbol:
                assert bool(rows) is (symbol == SYMBOL), panel["title"]
            if panel["type"] == "candlestick" and rows:
                assert kinds == CANDLE
            if panel["type"] in ("timeseries", "stat") and rows:
                assert "number" in kinds.values()
            if panel["type"] == "timeseries" and rows:
                assert kinds["time" if "time" in kinds else "Time"] == "time"
            if panel["type"] == "table":
                named = {item["matcher"]["options"] for item in panel["fieldConfig"]["overrides"]}
                assert named <= set(kinds) or not rows


def states(grafana: Grafana) -> dict[str, str]:
    """The state of each rule, or what is wrong with it; `unknown` before its first evaluation."""
    groups = grafana.ask("/api/prometheus/grafana/api/v1/rules")["data"]["groups"]
    return {
        rule["name"]: rule["state"] if rule["health"] in ("ok", "nodata") else rule["health"]
        for group in groups
        for rule in group["rules"]
        if not rule["lastEvaluation"].startswith("0001")
    }


def make_sound(database: psycopg.Connection) -> None:
    """A trade of now, services that beat for another hour, no lag, a check that passed."""
    database.execute("INSERT INTO tick_data VALUES (%s, 10, now(), 1, 1, NULL, now())", [SYMBOL])
    database.execute(
        "INSERT INTO service_heartbeat (service, pid, started_at, version, beat_at, state, counts, symbols) "
        "SELECT s, 1, now(), '', now() + INTERVAL '1 hour', 'running', '{}', ARRAY[%s] "
        "FROM unnest(ARRAY['producer', 'tick-stream']) AS s "
        "ON CONFLICT (service) DO UPDATE SET beat_at = excluded.beat_at, symbols = excluded.symbols",
        [SYMBOL],
    )
    database.execute("DELETE FROM stream_stats")
    database.execute("DELETE FROM asset_check_state")
    database.execute("INSERT INTO asset_check_state VALUES ('ohlcv_data', 'sound', 'ERROR', TRUE, NULL, now())")
    apply_file(database, "views/170_alerts.sql")


def make_every_fault(database: psycopg.Connection) -> None:
    """No trade, a stream that stopped, one whose lag grows, a check that failed, databases of 51 GB."""
    database.execute("DELETE FROM tick_data WHERE symbol = %s", [SYMBOL])
    database.execute("UPDATE service_heartbeat SET beat_at = now() - INTERVAL '2 minutes'")
    database.execute(
        "INSERT INTO stream_stats "
        "SELECT 'ohlcv-stream', now() - s * INTERVAL '10 seconds', 1, 1, 1, 300 - 3 * s, 0, 0, 0, 0 "
        "FROM generate_series(0, 35) AS s"
    )
    database.execute("UPDATE asset_check_state SET passed = FALSE")
    database.execute("CREATE OR REPLACE VIEW database_size AS SELECT 51e9::float8 AS bytes, 50e9::float8 AS most")


def clean_up(database: psycopg.Connection) -> None:
    database.execute("DELETE FROM tick_data WHERE symbol = %s", [SYMBOL])
    for table in ("service_heartbeat", "stream_stats", "asset_check_state"):
        database.execute(f"DELETE FROM {table}")
    apply_file(database, "views/170_alerts.sql")


def test_every_alert_fires_when_its_fault_is_made_and_ends_with_it(
    grafana: Grafana, database: psycopg.Connection, sent: tuple[str, list[dict[str, Any]]]
):
    try:
        make_sound(database)
        eventually(lambda: set(states(grafana).values()) == {"inactive"}, 60)
        make_every_fault(database)
        eventually(lambda: set(states(grafana).values()) == {"firing"}, 90)
        eventually(lambda: all(title in json.dumps(sent[1]) for title in RULES), 60)
        make_sound(database)
        eventually(lambda: set(states(grafana).values()) == {"inactive"}, 60)
    finally:
        clean_up(database)


@pytest.fixture(scope="module")
def browser() -> str:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no chromium on PATH")
    return found


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.uid)
def test_no_panel_shows_an_error(grafana: Grafana, browser: str, tmp_path: Path, dashboard: Dashboard):
    shown = page(browser, f"{grafana.address}/d/{dashboard.uid}?kiosk&var-symbol={SYMBOL}", tmp_path)
    variables = {"symbol": SYMBOL, "interval": "1m", "window": "30"}
    assert sorted(shown.panels) == sorted(with_variables(panel["title"], variables) for panel in dashboard.panels)
    assert shown.errors == []


def test_a_broken_panel_would_be_seen(grafana: Grafana, browser: str, database: psycopg.Connection, tmp_path: Path):
    database.execute("ALTER VIEW volatility_1m RENAME TO hidden")
    try:
        shown = page(browser, f"{grafana.address}/d/market?kiosk&var-symbol={SYMBOL}", tmp_path)
    finally:
        database.execute("ALTER VIEW hidden RENAME TO volatility_1m")
    assert shown.errors == ["1-minute price volatility"]


def test_whoever_looks_cannot_edit(grafana: Grafana):
    with pytest.raises(HTTPError, match="403"):
        grafana.ask("/api/dashboards/db", {"dashboard": {"title": "mine"}, "overwrite": True})


def test_the_database_is_asked_as_the_reader(grafana: Grafana):
    target = {
        "refId": "A",
        "datasource": {"uid": "timescaledb"},
        "format": "table",
        "rawQuery": True,
        "rawSql": "SELECT current_user::text",
    }
    assert grafana.query([target])["A"]["frames"][0]["data"]["values"] == [["stocks_reader"]]


def test_without_a_webhook_alerts_are_seen_in_grafana_only(
    product: Settings, database: psycopg.Connection, tmp_path: Path
):
    with grafana_server(command(product), product, tmp_path) as grafana:
        try:
            make_sound(database)
            make_every_fault(database)
            eventually(lambda: set(states(grafana).values()) == {"firing"}, 90)
        finally:
            clean_up(database)
        assert grafana.complaints() == []


def test_a_folder_that_is_no_grafana_is_named(tmp_path: Path):
    settings = load_settings().model_copy(update={"grafana_home": tmp_path})
    with pytest.raises(SettingsError, match=f"grafana_home: {tmp_path} is no unpacked Grafana"):
        grafana_command(settings)


def test_without_grafana_there_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    settings = load_settings().model_copy(update={"grafana_home": None})
    assert grafana_command(settings) is None
