"""Rollups as pandas makes them, by the hours of the New York Stock Exchange and the ends of UTC days."""

import pandas as pd

from stock_pipeline_tests.expected_bars import SESSION

HOLIDAYS = {"2026-11-26": None, "2026-11-27": pd.Timedelta("13h")}
"""Thanksgiving, and the day after it, which closes early."""

WIDTHS = {"ohlcv_5m": "5min", "ohlcv_15m": "15min", "ohlcv_1h": "1h"}


def day_of(symbol: str, time: pd.Timestamp) -> pd.Timestamp | None:
    """The start of the day of a bar; None outside of any."""
    if ":" in symbol:
        return time.floor("D")
    local = time.tz_convert("America/New_York")
    day, (opens, closes) = local.normalize(), SESSION
    closes = HOLIDAYS.get(f"{day:%Y-%m-%d}", closes)
    if local.weekday() > 4 or closes is None or not opens <= local - day < closes:
        return None
    return (day + opens).tz_convert("UTC")


def expected_rollup(bars: pd.DataFrame, table: str) -> pd.DataFrame:
    """A rollup of bars of a minute, indexed by timestamp and symbol."""
    rows = bars.reset_index().sort_values("timestamp")
    if table == "ohlcv_1d":
        pairs = zip(rows["symbol"], rows["timestamp"], strict=True)
        rows["timestamp"] = pd.to_datetime([day_of(symbol, time) for symbol, time in pairs], utc=True)
        rows = rows.dropna(subset="timestamp")
    else:
        rows["timestamp"] = rows["timestamp"].dt.floor(WIDTHS[table])
    groups = rows.assign(notional=rows["vwap"] * rows["volume"]).groupby(["timestamp", "symbol"])
    made = groups.agg(
        open=("open", "first"),
        high=("high", "max"),
        low=("low", "min"),
        close=("close", "last"),
        volume=("volume", "sum"),
        trades=("trades", "sum"),
        ticks=("ticks", "sum"),
    )
    made["vwap"] = groups["notional"].sum() / made["volume"]
    return made.sort_index()
