"""Bars of one minute: parts of them, each from one batch of trades, made in the workers, and the parts put together.

The same rules as the SQL function bars_from_ticks.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark.eligibility import Eligibility

PARTS = (
    "timestamp timestamp, symbol string, first decimal(38), open double, last decimal(38), close double, "
    "high double, low double, volume double, notional double, trades long, ticks long, newest_receipt timestamp"
)
"""Schema of parts of bars: first and last are the places of open and close in the order of trades; null where no trade
updates them."""


def make_parts(trades: pa.Table, rules: Eligibility) -> pa.Table:
    """The parts of bars that a batch of trades makes: one for each minute and symbol.

    Args:
        trades: symbol, price, event_time, volume, seq, conditions, received_at, as spark.trades reads them.
    """
    trades = trades.sort_by([("event_time", "ascending"), ("seq", "ascending")])
    updates = rules.judge(trades)
    price, volume = trades["price"], _only(updates.volume, trades["volume"], 0.0)
    rows = pa.table(
        {
            "timestamp": pc.floor_temporal(trades["event_time"], unit="minute"),
            "symbol": trades["symbol"],
            "place": _only(updates.last, _places(trades)),
            "price": _only(updates.last, price),
            "extreme": _only(updates.high_low, price),
            "volume": volume,
            "notional": pc.multiply(price, volume),
            "trade": pc.cast(pc.greater(volume, 0.0), pa.int64()),
            "received_at": trades["received_at"],
        }
    )
    # Ordered aggregates need a single thread.
    parts = rows.group_by(["timestamp", "symbol"], use_threads=False).aggregate(
        [
            ("place", "min"),
            ("price", "first"),
            ("place", "max"),
            ("price", "last"),
            ("extreme", "max"),
            ("extreme", "min"),
            ("volume", "sum"),
            ("notional", "sum"),
            ("trade", "sum"),
            ([], "count_all"),
            ("received_at", "max"),
        ]
    )
    return parts.rename_columns([column.split()[0] for column in PARTS.split(", ")])


def _places(trades: pa.Table) -> pa.Array:
    """Numbers that follow the order by (event_time, seq): numbers, unlike structs, are aggregated in place by Spark."""
    halves = np.column_stack([trades["seq"].to_numpy(), trades["event_time"].cast(pa.int64()).to_numpy()])
    return pa.Array.from_buffers(pa.decimal128(38), len(trades), [None, pa.py_buffer(halves)])


def _only(chosen: Any, values: pa.ChunkedArray, otherwise: float | None = None) -> pa.ChunkedArray:
    return pc.if_else(chosen, values, pa.scalar(otherwise, values.type))


def merge_parts(parts: DataFrame) -> DataFrame:
    """Bars from their parts.

    Returns:
        timestamp (start of the minute), symbol, open, high, low, close, volume, trades, ticks, vwap (null at
        volume 0), newest_receipt. Open is the first and close the last trade by (event_time, seq) that updates last;
        a minute without one has no bar.
    """
    return (
        parts.groupBy("timestamp", "symbol")
        .agg(
            F.min_by("open", "first").alias("open"),
            F.max("high").alias("high"),
            F.min("low").alias("low"),
            F.max_by("close", "last").alias("close"),
            F.sum("volume").alias("volume"),
            F.sum("trades").alias("trades"),
            F.sum("ticks").alias("ticks"),
            F.sum("notional").alias("notional"),
            F.max("newest_receipt").alias("newest_receipt"),
        )
        .where("open IS NOT NULL")
        .select(
            "timestamp",
            "symbol",
            "open",
            "high",
            "low",
            "close",
            "volume",
            "trades",
            "ticks",
            F.when(F.col("volume") > 0, F.col("notional") / F.col("volume")).alias("vwap"),
            "newest_receipt",
        )
    )
