"""The volatility views against R's package TTR, Python's hffe and pandas.

`volatility/variances.csv.gz` has realised and bipower variances by hffe 0.0.13 (variances.py beside it).
`volatility/ttr.csv.gz` is what TTR 0.24.3 makes of `volatility/bars.csv.gz` (ttr.R beside them, R 4.2.2). TTR moves its
sums from bar to bar, so that its own rounding grows with the series: over 2,000 bars to less than 1e-10, relative.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
import pytest

from stock_pipeline.settings import Settings

pytestmark = pytest.mark.stack

FIGURES = Path(__file__).parent.parent / "volatility"

BEGIN = datetime(2026, 6, 1, tzinfo=UTC)

SYMBOL = "BINANCE:VOL"

PER_YEAR = 525_600

MEASURES = ["close_to_close", "parkinson", "garman_klass", "rogers_satchell", "yang_zhang", "atr"]


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    frame = pd.read_csv(FIGURES / "bars.csv.gz")
    frame.index = pd.to_datetime([BEGIN + timedelta(minutes=minute) for minute in frame["minute"]])
    return frame


@pytest.fixture(scope="module")
def database(product: Settings, bars: pd.DataFrame) -> Iterator[psycopg.Connection]:
    with psycopg.connect(product.conninfo("owner")) as connection, connection.transaction(force_rollback=True):
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO instrument VALUES (%s, 'crypto', '24/7', %s)", [SYMBOL, PER_YEAR])
            cursor.executemany(
                "INSERT INTO ohlcv_data (timestamp, symbol, open, high, low, close, volume, vwap) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, (%s + %s) / 2.0)",
                [
                    (time, SYMBOL, b.open, b.high, b.low, b.close, number % 7, b.high, b.low)
                    for number, (time, b) in enumerate(zip(bars.index, bars.itertuples(), strict=True))
                ],
            )
        yield connection


def select(database: psycopg.Connection, statement: str, *values: object) -> pd.DataFrame:
    cursor = database.execute(statement, values)
    frame = pd.DataFrame(cursor.fetchall(), columns=[column.name for column in cursor.description or ()])
    frame["timestamp"] = pd.to_datetime(frame["timestamp"], utc=True)
    return frame.set_index("timestamp")


@pytest.mark.parametrize("window", [30, 60, 1440])
def test_every_measure_is_that_of_ttr(database: psycopg.Connection, window: int):
    expected = pd.read_csv(FIGURES / "ttr.csv.gz").query("bars == @window")
    expected.index = pd.to_datetime([BEGIN + timedelta(minutes=minute) for minute in expected["minute"]])
    found = select(database, f"SELECT * FROM volatility_{window} WHERE symbol = %s", SYMBOL)
    for measure in MEASURES:
        np.testing.assert_allclose(
            found.loc[expected.index, measure].astype(float), expected[measure], rtol=1e-9, err_msg=measure
        )


@pytest.mark.parametrize("window", [30, 60, 1440])
def test_a_window_that_is_not_full_is_null(database: psycopg.Connection, bars: pd.DataFrame, window: int):
    found = select(database, f"SELECT * FROM volatility_{window} WHERE symbol = %s", SYMBOL)
    assert list(found.index) == list(bars.index)
    measures = found.drop(columns="symbol")
    assert measures.iloc[: window - 1].isna().all(axis=None)
    full = measures.iloc[window - 1]
    assert full.isna().to_dict() == {name: name == "yang_zhang" for name in measures}, "it needs one bar more"
    assert measures.iloc[window:].notna().all(axis=None)
    assert pd.to_datetime(measures["from_timestamp"], utc=True).iloc[-1] == bars.index[-window]


@pytest.mark.parametrize("window", [30, 60, 1440])
def test_realised_and_bipower_are_those_of_another_hand(database: psycopg.Connection, window: int):
    expected = pd.read_csv(FIGURES / "variances.csv.gz").query("bars == @window")
    expected.index = pd.to_datetime([BEGIN + timedelta(minutes=minute) for minute in expected["minute"]])
    found = select(database, f"SELECT * FROM volatility_{window} WHERE symbol = %s", SYMBOL).loc[expected.index]
    realised = PER_YEAR / (window - 1) * expected["realised_variance"]
    bipower = PER_YEAR / (window - 2) * expected["bipower_variance"]
    assert len(expected) > 10
    np.testing.assert_allclose(found["realised"].astype(float), np.sqrt(realised), rtol=1e-9)
    np.testing.assert_allclose(found["bipower"].astype(float), np.sqrt(bipower), rtol=1e-9)
    share = np.maximum(0, 1 - bipower / realised)
    np.testing.assert_allclose(found["jump_share"].astype(float), share, rtol=1e-9, atol=1e-12)


def test_a_jump_is_seen_as_one(database: psycopg.Connection, bars: pd.DataFrame):
    found = select(database, "SELECT timestamp, jump_share FROM volatility_60 WHERE symbol = %s", SYMBOL)["jump_share"]
    # The returns of 2 % of make_bars.py, beside others of 0.05 %.
    for jump in (400, 900, 1700):
        assert found.iloc[jump : jump + 59].min() > 0.8
        assert found.iloc[jump + 59 : jump + 200].mean() < 0.2


def test_the_function_gives_the_rows_of_the_view(database: psycopg.Connection, bars: pd.DataFrame):
    begin, end = bars.index[100], bars.index[180]
    view = select(database, "SELECT * FROM volatility_60 WHERE symbol = %s", SYMBOL)
    called = select(database, "SELECT * FROM volatility(%s, %s, %s, 60)", SYMBOL, begin, end)
    pd.testing.assert_frame_equal(called, view.loc[begin:end], check_freq=False)


def test_prices_that_stand_still_have_no_volatility_and_no_jumps(database: psycopg.Connection):
    with database.transaction(force_rollback=True):
        database.execute("UPDATE ohlcv_data SET open = 5, high = 5, low = 5, close = 5 WHERE symbol = %s", [SYMBOL])
        last = select(database, "SELECT * FROM volatility_30 WHERE symbol = %s", SYMBOL).iloc[-1]
    assert last[[*MEASURES, "realised", "bipower"]].eq(0).all()
    assert last["jump_share"] is None or math.isnan(last["jump_share"])


def test_an_instrument_without_a_calendar_has_no_annual_figures(database: psycopg.Connection):
    with database.transaction(force_rollback=True):
        database.execute("UPDATE ohlcv_data SET symbol = 'BINANCE:NOBODY' WHERE symbol = %s", [SYMBOL])
        found = select(database, "SELECT * FROM volatility('BINANCE:NOBODY', '-infinity', 'infinity', 30)")
    assert found[["close_to_close", "yang_zhang", "bipower", "jump_share"]].isna().all(axis=None)
    assert found["atr"].notna().any()


@pytest.mark.parametrize("change", ["low = 0", "high = low / 2", "close = 'NaN'", "high = 'Infinity'"])
def test_an_impossible_bar_makes_windows_null_and_no_wrong_number(
    database: psycopg.Connection, bars: pd.DataFrame, change: str
):
    sound = select(database, "SELECT * FROM volatility_30 WHERE symbol = %s", SYMBOL).drop(columns="symbol")
    with database.transaction(force_rollback=True):
        database.execute(
            f"UPDATE ohlcv_data SET {change} WHERE symbol = %s AND timestamp = %s", [SYMBOL, bars.index[99]]
        )
        found = select(database, "SELECT * FROM volatility_30 WHERE symbol = %s", SYMBOL).drop(columns="symbol")
    assert found.iloc[99:129].isna().all(axis=None)
    yang_zhang = found.columns == "yang_zhang"
    assert math.isnan(found["yang_zhang"].astype(float).iloc[129]), "it reaches back to the close of that bar"
    pd.testing.assert_frame_equal(found.iloc[:99], sound.iloc[:99], check_dtype=False)
    pd.testing.assert_frame_equal(
        found.iloc[129:].loc[:, ~yang_zhang], sound.iloc[129:].loc[:, ~yang_zhang], check_dtype=False
    )
    pd.testing.assert_frame_equal(found.iloc[130:], sound.iloc[130:], check_dtype=False)


def test_the_range_of_a_minute(database: psycopg.Connection, bars: pd.DataFrame):
    found = select(database, "SELECT * FROM volatility_1m WHERE symbol = %s ORDER BY timestamp", SYMBOL)
    assert list(found["range"]) == list(bars["high"] - bars["low"])


def test_vwap_bands_are_those_of_weighted_moments(database: psycopg.Connection, bars: pd.DataFrame):
    found = select(database, "SELECT * FROM vwap_bands WHERE symbol = %s ORDER BY timestamp", SYMBOL)
    weights = np.arange(len(bars)) % 7
    prices = ((bars["high"] + bars["low"]) / 2).to_numpy()
    days = bars.index.floor("D")
    # Bars before the day's first volume have no row.
    for place in range(1, len(bars), 41):
        today = (days == days[place]) & (np.arange(len(bars)) <= place)
        if not weights[today].sum():
            continue
        mean = np.average(prices[today], weights=weights[today])
        deviation = math.sqrt(np.average((prices[today] - mean) ** 2, weights=weights[today]))
        row = found.loc[bars.index[place]]
        assert row["vwap"] == pytest.approx(mean, rel=1e-12)
        assert row["deviation"] == pytest.approx(deviation, rel=1e-9, abs=1e-6)
        for number in (1, 2):
            assert row[f"upper_{number}"] == pytest.approx(mean + number * deviation, rel=1e-9)
            assert row[f"lower_{number}"] == pytest.approx(mean - number * deviation, rel=1e-9)
        assert row["from_timestamp"] == days[place]
