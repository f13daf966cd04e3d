"""What the assets of tables show of their content: how much there is, the newest bars as table and candlesticks."""

import base64
import math
from datetime import date, datetime
from typing import Any

from dagster import MetadataValue, TableRecord
from psycopg import sql

from stock_pipeline.bars.chart import Candle, candlesticks
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.settings import load_settings
from stock_pipeline.sql_files import load_sql

CANDLES = 120

ROWS = 10
"""Bars in the preview."""


def count_bars(timescale: TimescaleResource, table: str, begin: datetime, end: datetime) -> dict[date, int]:
    """How many bars start on each UTC day from `begin` to before `end`, where there are any."""
    rows = _fetch(timescale, "queries/count_bars_by_day.sql", table, {"begin": begin, "end": end})
    return {row["day"]: row["rows"] for row in rows}


def row_count(timescale: TimescaleResource, table: str) -> dict[str, Any]:
    """The approximate number of rows of a table, as metadata."""
    rows = timescale.fetch("queries/approximate_rows.sql", {"table": table})[0]["rows"]
    return {} if rows is None else {"dagster/row_count": int(rows)}


def bar_metadata(timescale: TimescaleResource, table: str, before: datetime) -> dict[str, Any]:
    """Row count of the table, the newest bars before a moment, and a chart of those of a symbol.

    The symbol is the first of those subscribed that has any.
    """
    metadata = row_count(timescale, table)
    values = {"before": before, "symbol": None, "limit": ROWS}
    newest = _fetch(timescale, "queries/newest_bars.sql", table, values)
    if newest:
        records = [TableRecord({name: shown(value) for name, value in bar.items()}) for bar in newest]
        metadata["preview"] = MetadataValue.table(records)
    for symbol in load_settings().symbols:
        bars = _fetch(timescale, "queries/newest_bars.sql", table, values | {"symbol": symbol, "limit": CANDLES})
        if bars:
            metadata["chart"] = _chart(f"{symbol}, {table}, UTC", bars)
            break
    return metadata


def _chart(title: str, bars: list[dict[str, Any]]) -> MetadataValue:
    candles = [Candle(**{name: bar[name] for name in Candle._fields}) for bar in bars]
    picture = base64.b64encode(candlesticks(title, candles)).decode()
    return MetadataValue.md(f"![{title}](data:image/png;base64,{picture})")


def shown(value: object) -> str | int | float | bool | None:
    """A value of a row as a table in Dagster takes it, without the noise of sums of doubles."""
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.12g}")
    if isinstance(value, float):
        # JSON has no NaN and no infinity.
        return str(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _fetch(timescale: TimescaleResource, statement: str, table: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    with timescale.connect() as connection:
        return connection.execute(load_sql(statement).format(bars=sql.Identifier(table)), values).fetchall()
