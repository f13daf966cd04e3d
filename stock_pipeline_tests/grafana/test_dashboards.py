"""The dashboards and alert rules without Grafana: what they name is there, and every query answers, fast enough."""

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.bars.rollups import ROLLUPS, refresh
from stock_pipeline.dashboards import DASHBOARDS, Dashboard, Query, as_grafana_asks, dashboards
from stock_pipeline.definitions import defs
from stock_pipeline.defs.tables import PANELS
from stock_pipeline.errors import BadDashboard
from stock_pipeline.settings import Settings
from stock_pipeline_tests.conftest import Stack

PROVISIONING = PROJECT_ROOT / "grafana" / "provisioning"

SYMBOL = "BINANCE:GRAFANA'S"
"""One whose name has to be quoted."""

INTERVALS = ["1m", "5m", "15m", "1h", "1d"]

MOST_ROWS = 10_000

END = datetime.now(UTC).replace(second=0, microsecond=0)

BUILT_IN = {"__timeFrom", "__timeTo", "__timeFilter", "__field"}


def nested(node: object) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nested(child)


def provisioned(name: str) -> dict[str, Any]:
    return yaml.safe_load((PROVISIONING / name).read_text())


def rules() -> list[dict[str, Any]]:
    return [rule for group in provisioned("alerting/rules.yaml")["groups"] for rule in group["rules"]]


def every_query() -> Sequence[pytest.param]:
    return [
        pytest.param(query, id=f"{dashboard.uid}: {query.owner} {number}")
        for dashboard in dashboards()
        for number, query in enumerate(dashboard.queries)
    ]


def test_uids_ids_and_variables_agree():
    known = {(source["uid"], source["type"]) for source in provisioned("datasources/timescaledb.yaml")["datasources"]}
    assert len({dashboard.uid for dashboard in dashboards()}) == len(dashboards()) > 0
    for dashboard in dashboards():
        content = json.loads(dashboard.path.read_text())
        ids = [panel["id"] for panel in dashboard.panels]
        assert len(set(ids)) == len(ids)
        used = {
            (node["datasource"]["uid"], node["datasource"]["type"]) for node in nested(content) if "datasource" in node
        }
        assert used == known
        variables = {variable["name"] for variable in dashboard.variables}
        texts = [text for node in nested(content) for text in node.values() if isinstance(text, str)]
        named = {name for text in texts for name in re.findall(r"\$\{?(\w+)", text)}
        assert named - BUILT_IN <= variables
        for panel in dashboard.panels:
            assert panel["description"] and panel["targets"]
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_alert_rules_name_what_is_there():
    panels = {(dashboard.uid, panel["id"]) for dashboard in dashboards() for panel in dashboard.panels}
    headings = re.findall(r"^## (.+)$", (PROJECT_ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE)
    anchors = {f"docs/alerts.md#{heading.lower().replace(' ', '-')}" for heading in headings}
    contacts = {contact["name"] for contact in provisioned("alerting/contact_points.yaml")["contactPoints"]}
    for rule in rules():
        query, condition = rule["data"]
        assert query["datasourceUid"] == "timescaledb"
        assert condition["model"]["expression"] == query["refId"] == query["model"]["refId"]
        assert condition["refId"] == rule["condition"]
        assert (rule["dashboardUid"], rule["panelId"]) in panels
        assert rule["annotations"]["runbook"] in anchors
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        assert rule["labels"]["severity"] in ("warning", "critical")
    assert len({rule["uid"] for rule in rules()}) == len(rules()) == len(anchors)
    [policy] = provisioned("alerting/policies.yaml")["policies"]
    assert {node["receiver"] for node in nested(policy) if "receiver" in node} == contacts


def test_assets_link_to_panels_that_show_them():
    panels = {panel["id"]: panel for panel in Dashboard(DASHBOARDS / "market.json").panels}
    specs = {spec.key.to_user_string(): spec for spec in defs().resolve_all_asset_specs()}
    for table, place in PANELS.items():
        link = specs[table].metadata["grafana"].url
        assert link.startswith("http://localhost:") and link.endswith(f"/d/market?{place}")
        found = re.match(r"viewPanel=panel-(\d+)", place)
        statements = " ".join(target["rawSql"] for target in panels[int(found[1])]["targets"])
        function = "bars(" if table.startswith(("ohlcv", "tick")) else re.sub(r"_\d+$", "", table)
        assert function in statements


def test_what_queries_read_is_found():
    market, health = dashboards()
    assert {"bars", "volatility", "vwap_bands", "volatility_1m", "ohlcv_data", "instrument"} <= market.sources()
    assert "busiest" not in health.sources()


@pytest.fixture(scope="module")
def database(product: Settings) -> Iterator[psycopg.Connection]:
    """Twelve days of minutes of one symbol, and of a stream's figures; undone at the end."""
    with (
        psycopg.connect(product.conninfo("owner")) as connection,
        connection.transaction(force_rollback=True),
    ):
        connection.execute("INSERT INTO instrument VALUES (%s, 'crypto', '24/7', 525600)", [SYMBOL])
        connection.execute(
            "INSERT INTO ohlcv_data (timestamp, symbol, open, high, low, close, volume, trades, ticks, vwap, is_final) "
            "SELECT minute, %s, 10, 12, 9, 10 + random(), 1, 1, 1, 10, TRUE "
            "FROM generate_series(%s - INTERVAL '12 days', %s, '1 minute') AS minute",
            [SYMBOL, END, END],
        )
        connection.execute(
            "INSERT INTO stream_stats SELECT 'tick-stream', minute, 60, 6, 0, 0, 0.2, 0.5, 0.3, 0 "
            "FROM generate_series(%s - INTERVAL '30 days', %s, '1 minute') AS minute",
            [END, END],
        )
        for rollup in ROLLUPS:
            refresh(connection, rollup)
        connection.execute("ANALYZE")
        yield connection


@pytest.mark.stack
@pytest.mark.parametrize("days", [1 / 24, 1 / 4, 30])
@pytest.mark.parametrize("query", every_query())
def test_every_query_answers(database: psycopg.Connection, query: Query, days: float):
    for interval in INTERVALS if "interval" in query.text else INTERVALS[:1]:
        for symbol in (SYMBOL, "NONE"):
            begin, variables = END - timedelta(days=days), {"symbol": symbol, "interval": interval, "window": "60"}
            cursor = database.execute(as_grafana_asks(query.text, begin, END, variables))
            rows = cursor.fetchall()
            assert len(rows) <= MOST_ROWS
            if symbol == SYMBOL and "symbol" in query.text and "feed_gap" not in query.text:
                assert rows, interval
            if cursor.description[0].name == "time" and query.kind != "annotation":
                times = [row[0] for row in rows]
                assert times == sorted(times)


def sequential_scans(database: psycopg.Connection, ended: datetime) -> list[tuple[str, int]]:
    """How often this transaction has read each older chunk as a whole, also from inside a function."""
    return database.execute(
        "SELECT chunk_name, seq_scan FROM timescaledb_information.chunks "
        "INNER JOIN pg_stat_xact_all_tables ON schemaname = chunk_schema AND relname = chunk_name "
        "WHERE range_end <= %s ORDER BY 1",
        [ended],
    ).fetchall()


@pytest.mark.stack
@pytest.mark.parametrize("query", every_query())
def test_no_query_of_an_hour_reads_older_chunks_whole(database: psycopg.Connection, query: Query):
    begin, variables = END - timedelta(hours=1), {"symbol": SYMBOL, "interval": "1m", "window": "60"}
    before = sequential_scans(database, begin)
    assert len(before) > 4
    database.execute(as_grafana_asks(query.text, begin, END, variables)).fetchall()
    assert sequential_scans(database, begin) == before


@pytest.mark.stack
def test_a_query_that_reads_everything_would_be_seen(database: psycopg.Connection):
    before = sequential_scans(database, END)
    database.execute("SELECT max(ticks) FROM ohlcv_data").fetchall()
    assert sequential_scans(database, END) != before


@pytest.mark.stack
@pytest.mark.parametrize("path", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.stem)
def test_the_reader_may_ask_and_every_panel_gets_what_it_needs(shared_stack: Stack, path: Path):
    with shared_stack.connect("reader") as reader:
        assert list(Dashboard(path).problems(reader)) == []


BROKEN = {
    "an unknown column": (
        "    close AS price",
        "    closing AS price",
        "Last price",
        'column "closing" does not exist',
    ),
    "a candle without open": (
        "    open,\\n    high",
        "    high",
        "OHLCV: $symbol, $interval",
        "no column 'open', which",
    ),
    "a candle of text": ("    open,", "    open::text,", "OHLCV: $symbol, $interval", "column 'open' is of type text"),
    "no numbers": ("    volume\\nFROM", "    symbol\\nFROM", "Volume: $symbol, $interval", "no column with numbers"),
    "a lost override": ("AS minute", "AS since", "1-minute price volatility", "no column 'minute', which its options"),
    "an unknown variable": (", $window)", ", $windows)", "Volatility: $symbol, $window bars", "$windows is no"),
}


@pytest.mark.stack
@pytest.mark.parametrize(("old", "new", "panel", "error"), BROKEN.values(), ids=BROKEN)
def test_a_broken_panel_is_named(shared_stack: Stack, tmp_path: Path, old: str, new: str, panel: str, error: str):
    text = (DASHBOARDS / "market.json").read_text()
    assert old in text
    broken = tmp_path / "broken.json"
    broken.write_text(text.replace(old, new))
    with shared_stack.connect("reader") as reader:
        problems = {problem.owner: problem.error for problem in Dashboard(broken).problems(reader)}
    assert error in problems[panel]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "no JSON: Expecting property name.*line 1 column 2"),
        ("[]", "no dashboard"),
        ('{"uid": "a"}', "no dashboard: KeyError.'description'"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, error: str):
    (path := tmp_path / "broken.json").write_text(text)
    with pytest.raises(BadDashboard, match=f"{path} is {error}"):
        Dashboard(path)


def test_a_query_that_is_no_sql_is_named(tmp_path: Path):
    path = tmp_path / "broken.json"
    path.write_text((DASHBOARDS / "market.json").read_text().replace("SELECT symbol FROM instrument", "SELECT FROM ("))
    with pytest.raises(BadDashboard, match=f"{path}: 'symbol': "):
        Dashboard(path).sources()


@pytest.mark.stack
@pytest.mark.parametrize("interval", INTERVALS)
def test_bars_begin_with_the_one_in_which_the_range_begins(database: psycopg.Connection, interval: str):
    table = "ohlcv_data" if interval == "1m" else f"ohlcv_{interval}"
    begin = END - timedelta(days=2, minutes=7, seconds=30)
    [(expected,)] = database.execute(
        f"SELECT max(timestamp) FROM {table} WHERE symbol = %s AND timestamp <= %s", [SYMBOL, begin]
    )
    rows = database.execute("SELECT timestamp FROM bars(%s, %s, %s, %s)", [interval, SYMBOL, begin, END]).fetchall()
    assert rows[0] == (expected,)


@pytest.mark.stack
def test_of_too_many_bars_the_newest_are_shown(database: psycopg.Connection):
    rows = database.execute("SELECT timestamp FROM bars('1m', %s, '-infinity', 'infinity')", [SYMBOL]).fetchall()
    assert len(rows) == MOST_ROWS
    assert rows[-1] == (END,)


@pytest.mark.stack
@pytest.mark.parametrize("interval", ["7m", "", None])
def test_an_unknown_interval_is_named(database: psycopg.Connection, interval: str | None):
    with (
        pytest.raises(psycopg.errors.InvalidParameterValue, match="choose 1m, 5m, 15m, 1h or 1d"),
        database.transaction(),
    ):
        database.execute("SELECT * FROM bars(%s, 'A', now(), now())", [interval])
