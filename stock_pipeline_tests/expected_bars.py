"""Bars as pandas makes them, by rules written here once more from the consolidated tapes' matrices."""

import pandas as pd

NOTHING = {"16", "20", "39"}
VOLUME_ONLY = {"3", "5", "10", "11", "12", "17", "22", "25", "26", "27", "37"}
NEVER_LAST = {"9", "18", "21", "30", "32", "40"}
FORM_T = "24"

SESSION = (pd.Timedelta("9h30min"), pd.Timedelta("16h"))
"""The regular session of the New York Stock Exchange on an ordinary day, local time."""


def is_in_session(symbol: str, time: pd.Timestamp) -> bool:
    """For ordinary weekdays only; what is no stock is always in session."""
    if ":" in symbol:
        return True
    local = time.tz_convert("America/New_York")
    return local.weekday() < 5 and SESSION[0] <= local - local.normalize() < SESSION[1]


def rights(symbol: str, time: pd.Timestamp, codes: list[str] | None) -> tuple[bool, bool, bool]:
    """Whether a trade updates high and low, last, volume."""
    given = set(codes or ())
    volume = not given & NOTHING
    price = volume and not given & VOLUME_ONLY and not (FORM_T in given and is_in_session(symbol, time))
    return price, price and not given & NEVER_LAST, volume


def expected_bars(trades: pd.DataFrame) -> pd.DataFrame:
    """Bars of the trades symbol, price, event_time, volume, seq, conditions, by timestamp and symbol."""
    trades = trades.assign(timestamp=trades["event_time"].dt.floor("min"))
    codes = trades["conditions"].map(lambda c: None if c is None else tuple(c))
    keys = list(zip(trades["symbol"], trades["timestamp"], codes, strict=True))
    # Sessions begin and end on the minute, so that the rights of a trade depend on its minute.
    known = {key: rights(*key) for key in set(keys)}
    trades[["high_low", "last", "counts"]] = pd.DataFrame([known[key] for key in keys], index=trades.index)
    trades = trades.sort_values(["event_time", "seq"])
    by_bar = ["timestamp", "symbol"]
    last = trades[trades["last"]].groupby(by_bar)["price"]
    extremes = trades[trades["high_low"]].groupby(by_bar)["price"]
    counted = trades[trades["counts"]]
    counted = counted.assign(notional=counted["price"] * counted["volume"], trade=counted["volume"] > 0)
    sums = counted.groupby(by_bar)[["volume", "notional", "trade"]].sum()
    columns = {
        "open": last.first(),
        "high": extremes.max(),
        "low": extremes.min(),
        "close": last.last(),
        "volume": sums["volume"],
        "trades": sums["trade"],
        "ticks": trades.groupby(by_bar).size(),
        "vwap": sums["notional"] / sums["volume"],
    }
    bars = pd.DataFrame({name: column.reindex(last.first().index) for name, column in columns.items()})
    bars = bars.fillna({"volume": 0.0, "trades": 0})
    return bars.sort_index()


COLUMNS = ["open", "high", "low", "close", "volume", "trades", "ticks", "vwap"]


def assert_same_bars(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Exactly equal; volume and vwap within 1e-9, relative."""
    assert list(found.index) == list(expected.index)
    for column in COLUMNS:
        tolerance = {"rtol": 1e-9} if column in ("volume", "vwap") else {"check_exact": True}
        pd.testing.assert_series_equal(
            found[column], expected[column], check_dtype=False, check_index=False, **tolerance
        )


def bars_frame(rows: list[tuple]) -> pd.DataFrame:
    """Rows of timestamp, symbol and COLUMNS as a frame like that of expected_bars."""
    frame = pd.DataFrame(rows, columns=["timestamp", "symbol", *COLUMNS])
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True)
    frame["vwap"] = frame["vwap"].astype(float)
    return frame.set_index(["timestamp", "symbol"]).sort_index()
