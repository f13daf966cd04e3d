"""The dashboards: what they name is there, and every query answers."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.bars.rollups import ROLLUPS, refresh
from stock_pipeline.definitions import defs
from stock_pipeline.defs.tables import PANELS
from stock_pipeline.settings import Settings
from stock_pipeline_tests.conftest import Stack

FOLDER = PROJECT_ROOT / "grafana"

SYMBOL = "BINANCE:GRAFANA'S"
"""One whose name has to be quoted."""

INTERVALS = ["1m", "5m", "15m", "1h", "1d"]

MOST_ROWS = 10_000

END = datetime.now(UTC).replace(second=0, microsecond=0)

BUILT_IN = {"__timeFrom", "__timeTo", "__timeFilter", "__field"}


def dashboards() -> list[Path]:
    return sorted((FOLDER / "dashboards").glob("*.json"))


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def nested(node: object) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nested(child)


def queries() -> list[tuple[str, str]]:
    """Every query with the panel, annotation or variable that it belongs to."""
    found = []
    for path in dashboards():
        dashboard = load(path)
        for owner in (*dashboard["panels"], *dashboard["annotations"]["list"]):
            name = owner.get("title") or owner["name"]
            found += [(f"{path.stem}: {name}", node["rawSql"]) for node in nested(owner) if "rawSql" in node]
        variables = [v for v in dashboard["templating"]["list"] if v["type"] == "query"]
        found += [(f"{path.stem}: {variable['name']}", variable["query"]) for variable in variables]
    return found


def with_variables(query: str, **variables: str) -> str:
    """The query with the dashboard's variables as Grafana puts them in."""
    for name, value in variables.items():
        quoted = "'" + value.replace("'", "''") + "'"
        query = query.replace(f"${{{name}:sqlstring}}", quoted).replace(f"${name}", value)
    return query


def as_grafana_asks(query: str, begin: datetime, end: datetime, **variables: str) -> str:
    """The query with macros and variables as Grafana puts them in."""
    times = {"From": begin, "To": end}
    for name, time in times.items():
        query = query.replace(f"$__time{name}()", f"'{time:%Y-%m-%dT%H:%M:%S.%fZ}'")
    query = re.sub(
        r"\$__timeFilter\((.*?)\)", rf"\1 BETWEEN '{begin:%Y-%m-%dT%H:%M:%SZ}' AND '{end:%Y-%m-%dT%H:%M:%SZ}'", query
    )
    query = with_variables(query, **variables)
    assert "$" not in query, query
    return query


def test_uids_ids_and_variables_agree():
    sources = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "timescaledb.yaml").read_text())["datasources"]
    known = {(source["uid"], source["type"]) for source in sources}
    paths = dashboards()
    assert len({load(path)["uid"] for path in paths}) == len(paths) > 0
    for path in paths:
        dashboard = load(path)
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        used = {
            (node["datasource"]["uid"], node["datasource"]["type"])
            for node in nested(dashboard)
            if "datasource" in node
        }
        assert used == known
        variables = {variable["name"] for variable in dashboard["templating"]["list"]}
        texts = [text for node in nested(dashboard) for text in node.values() if isinstance(text, str)]
        named = {name for text in texts for name in re.findall(r"\$\{?(\w+)", text)}
        assert named - BUILT_IN <= variables
        for panel in dashboard["panels"]:
            assert panel["description"] and panel["targets"]
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_assets_link_to_panels_that_show_them():
    panels = {panel["id"]: panel for panel in load(FOLDER / "dashboards" / "market.json")["panels"]}
    specs = {spec.key.to_user_string(): spec for spec in defs().resolve_all_asset_specs()}
    for table, place in PANELS.items():
        link = specs[table].metadata["grafana"].url
        assert link.startswith("http://localhost:") and link.endswith(f"/d/market?{place}")
        found = re.match(r"viewPanel=panel-(\d+)", place)
        statements = " ".join(target["rawSql"] for target in panels[int(found[1])]["targets"])
        function = "bars(" if table.startswith(("ohlcv", "tick")) else re.sub(r"_\d+$", "", table)
        assert function in statements


@pytest.fixture(scope="module")
def database(product: Settings) -> Iterator[psycopg.Connection]:
    """Twelve days of minutes of one symbol; undone at the end."""
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
        for rollup in ROLLUPS:
            refresh(connection, rollup)
        yield connection


@pytest.mark.stack
@pytest.mark.parametrize("days", [1 / 24, 1 / 4, 30])
@pytest.mark.parametrize(("name", "query"), queries())
def test_every_query_answers(database: psycopg.Connection, name: str, query: str, days: float):
    for interval in INTERVALS if "interval" in query else INTERVALS[:1]:
        for symbol in (SYMBOL, "NONE"):
            begin, variables = END - timedelta(days=days), {"symbol": symbol, "interval": interval, "window": "60"}
            cursor = database.execute(as_grafana_asks(query, begin, END, **variables))
            rows = cursor.fetchall()
            assert len(rows) <= MOST_ROWS
            if symbol == SYMBOL and name.startswith("market") and "feed_gap" not in query:
                assert rows, (name, interval)
            if cursor.description[0].name == "time":
                times = [row[0] for row in rows]
                assert times == sorted(times)


@pytest.mark.stack
@pytest.mark.parametrize(("name", "query"), queries())
def test_the_reader_may_ask(shared_stack: Stack, name: str, query: str):
    with shared_stack.connect("reader") as reader:
        reader.execute(as_grafana_asks(query, END - timedelta(hours=1), END, symbol=SYMBOL, interval="5m", window="30"))


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
