"""The bar function, in Spark and in SQL, against pandas: by any order of arrival the same bar."""

import random
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from spark.bars import PARTS, make_parts, merge_parts
from spark.eligibility import EVERY_TRADE, Eligibility, load_eligibility
from stock_pipeline.settings import Settings
from stock_pipeline_tests.conftest import Stack
from stock_pipeline_tests.expected_bars import COLUMNS, assert_same_bars, bars_frame, expected_bars

pytestmark = pytest.mark.stack

OPENING = datetime(2026, 11, 20, 14, 30, tzinfo=UTC)
"""Of the New York Stock Exchange, on a Friday."""

MOMENT = pa.timestamp("us", "UTC")

TRADES = pa.schema(
    {
        "symbol": pa.string(),
        "price": pa.float64(),
        "event_time": MOMENT,
        "volume": pa.float64(),
        "seq": pa.int64(),
        "conditions": pa.list_(pa.string()),
        "received_at": MOMENT,
    }
)


@pytest.fixture(scope="module")
def rules(product: Settings) -> Eligibility:
    return load_eligibility(product)


# Few prices, times and codes, so that ties and mixtures are common.
ticks = st.lists(
    st.tuples(
        st.sampled_from(["BAR", "BAR:COIN"]),
        st.sampled_from([10.0, 10.5, 11.0, 99.0]),
        st.integers(-90_000, 90_000).map(lambda ms: OPENING + timedelta(milliseconds=ms // 1000 * 1000)),
        st.sampled_from([0.0, 1.0, 2.5]),
        st.one_of(
            st.none(),
            st.lists(st.integers(1, 42).map(str), max_size=3, unique=True),
            st.sampled_from([["1"], ["24"], ["12"], ["9"], ["16"]]),
        ),
    ),
    min_size=1,
    max_size=40,
)


def spark_bars(spark: SparkSession, rows: list[tuple], rules: Eligibility) -> pd.DataFrame:
    """From two batches."""
    batches = [[dict(zip(TRADES.names, (*row, row[2]), strict=True)) for row in rows[begin::2]] for begin in range(2)]
    parts = pa.concat_tables([make_parts(pa.Table.from_pylist(batch, TRADES), rules) for batch in batches])
    bars = merge_parts(spark.createDataFrame(parts, PARTS))
    return bars_frame([tuple(bar) for bar in bars.select("timestamp", "symbol", *COLUMNS).collect()])


def sql_bars(stack: Stack, rows: list[tuple], eligibility: str = "consolidated") -> pd.DataFrame:
    with stack.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO instrument VALUES ('BAR', 'stock', '', 1), ('BAR:COIN', 'crypto', '', 1)")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO tick_data VALUES (%s, %s, %s, %s, %s, %s, now())", rows)
        bars: list[tuple] = []
        for symbol in ("BAR", "BAR:COIN"):
            bars += connection.execute(
                f"SELECT timestamp, symbol, {', '.join(COLUMNS)} FROM bars_from_ticks(%s, %s, %s, %s)",
                [OPENING - timedelta(minutes=2), OPENING + timedelta(minutes=2), symbol, eligibility],
            ).fetchall()
    return bars_frame(bars)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trades=ticks, seed=st.integers(0, 2**32))
def test_any_permutation_gives_the_bars_of_pandas(
    stack: Stack, spark: SparkSession, rules: Eligibility, trades: list[tuple], seed: int
):
    rows = [(*trade[:4], seq, trade[4]) for seq, trade in enumerate(trades)]
    frame = pd.DataFrame(rows, columns=["symbol", "price", "event_time", "volume", "seq", "conditions"])
    frame["conditions"] = frame["conditions"].astype(object).where(frame["conditions"].notna(), None)
    expected = expected_bars(frame)
    random.Random(seed).shuffle(rows)
    assert_same_bars(spark_bars(spark, rows, rules), expected)
    assert_same_bars(sql_bars(stack, rows), expected)


def test_by_the_setting_all_every_trade_makes_bars(stack: Stack, spark: SparkSession, product: Settings):
    rows = [("BAR", price, OPENING, 1.0, seq, [code]) for seq, (price, code) in enumerate([(5.0, "12"), (7.0, "16")])]
    rules = load_eligibility(product.model_copy(update={"bar_eligibility": "all"}))
    assert rules == EVERY_TRADE
    for bars in (spark_bars(spark, rows, rules), sql_bars(stack, rows, "all")):
        assert bars.reset_index()[COLUMNS].values.tolist() == [[5.0, 7.0, 5.0, 7.0, 2.0, 2, 2, 6.0]]
    assert sql_bars(stack, rows).empty


def test_all_codes_are_there_once_and_named(stack: Stack):
    assert stack.query("SELECT array_agg(code ORDER BY code) FROM trade_condition") == [(list(range(1, 42)),)]
    assert stack.query("SELECT count(*) FROM trade_condition WHERE name = '' OR source = ''") == [(0,)]


def test_sessions_are_those_of_the_exchange(stack: Stack):
    """Holidays and early closes as the New York Stock Exchange published them for 2026."""
    sessions = dict(stack.query("SELECT session::text, closes FROM market_session WHERE calendar = 'XNYS'"))
    holidays = ["2026-01-01", "2026-01-19", "2026-02-16", "2026-04-03", "2026-05-25", "2026-06-19", "2026-07-03"]
    holidays += ["2026-09-07", "2026-11-26", "2026-12-25"]
    assert not set(holidays) & set(sessions)
    for early in ("2026-11-27", "2026-12-24"):
        assert sessions[early] == datetime.fromisoformat(f"{early}T18:00Z")
    assert sum(day.startswith("2026") for day in sessions) == 251
