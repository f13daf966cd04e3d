"""A million trades, shuffled, late, of every condition code, through a stream that is killed: the bars of pandas."""

import io
import json
import random
import signal
import time

import fastavro
import numpy as np
import pandas as pd
import pytest
from confluent_kafka import Producer

from stock_pipeline.bars.rollups import ROLLUPS, refresh
from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.expected_bars import COLUMNS, assert_same_bars, bars_frame, expected_bars
from stock_pipeline_tests.expected_rollups import expected_rollup
from stock_pipeline_tests.messages import SCHEMA_PATH

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

TRADES = 1_000_000
BY_MESSAGE = 100
KILLS = 3
SYMBOLS = [f"MIL{n}" for n in range(10)] + [f"BINANCE:MIL{n}" for n in range(8)] + ["OANDA:MIL0", "OANDA:MIL1"]
OPENING_MS = 1_795_185_000_000
"""Friday 20 November 2026, 14:30 UTC, when New York opens."""

CODES = [*map(str, range(1, 42)), "99"]


def generate(chance: np.random.Generator) -> pd.DataFrame:
    """Trades around the opening, 61 of them in a millisecond now and then, in the order in which they arrive."""
    time_ms = OPENING_MS + chance.integers(-900_000, 900_000, TRADES)
    crowded = chance.integers(0, TRADES - 61, 500)
    for start in crowded:
        time_ms[start : start + 61] = time_ms[start]
    slow, quick = chance.integers(0, 600_000, TRADES), chance.integers(0, 300, TRADES)
    late_ms = np.where(chance.random(TRADES) < 0.3, slow, quick)
    one, two = (chance.choice(CODES, TRADES) for _ in range(2))
    kind = chance.random(TRADES)
    symbols = chance.choice(SYMBOLS, TRADES)
    stock = ~np.char.count(symbols.astype(str), ":").astype(bool)
    conditions = [
        None if not is_stock else ["1"] if k < 0.4 else ["24"] if k < 0.5 else [a] if k < 0.8 else [a, b]
        for is_stock, k, a, b in zip(stock, kind, one, two, strict=True)
    ]
    frame = pd.DataFrame(
        {
            "symbol": symbols,
            "price": np.round(100 * np.exp(chance.normal(0, 0.01, TRADES)), 2),
            "time_ms": time_ms,
            "volume": np.where(chance.random(TRADES) < 0.05, 0.0, chance.integers(1, 500, TRADES) / 10),
            "arrived_ms": time_ms + late_ms,
        }
    )
    frame["conditions"] = conditions
    return frame.sort_values("arrived_ms", kind="stable", ignore_index=True)


def publish(stack: Stack, trades: pd.DataFrame, begin: int, end: int) -> None:
    """Write messages without key to random partitions, and note the place of each trade in the column seq."""
    schema = fastavro.parse_schema(json.loads(SCHEMA_PATH.read_text()))
    producer = Producer({"bootstrap.servers": stack.kafka, "linger.ms": 20})
    rows = list(trades.iloc[begin:end][["symbol", "price", "time_ms", "volume", "conditions"]].itertuples(index=False))
    places: dict[int, int] = {}
    for first in range(0, len(rows), BY_MESSAGE):
        part = rows[first : first + BY_MESSAGE]
        value = io.BytesIO()
        data = [{"s": str(s), "p": p, "t": int(t), "v": v, "c": c} for s, p, t, v, c in part]
        fastavro.schemaless_writer(value, schema, {"type": "trade", "data": data})
        producer.produce(
            "stock-ticks",
            value.getvalue(),
            partition=random.randrange(4),
            timestamp=int(trades["arrived_ms"].iat[begin + first + len(part) - 1]),
            on_delivery=lambda _, m, at=begin + first: places.update({at: m.offset() * 2**22 + m.partition() * 2**12}),
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    for at, place in places.items():
        stop = min(at + BY_MESSAGE, end)
        trades.iloc[at:stop, trades.columns.get_loc("seq")] = place + np.arange(stop - at)


def test_every_bar_of_a_million_trades_equals_pandas(own: Stack):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    random.seed(seed)
    trades = generate(np.random.default_rng(seed)).assign(seq=0)
    # The records bear the time when the trades came, and Kafka deletes by that.
    assert own.command("up", KAFKA_RETENTION_DAYS="36500").returncode == 0
    tick = own.start("stream", "tick")
    slices = np.linspace(0, TRADES, KILLS + 2, dtype=int)
    for begin, end in zip(slices[:-1], slices[1:], strict=True):
        ohlcv = own.start("stream", "ohlcv")
        before = written(own)
        publish(own, trades, begin, end)
        eventually(lambda before=before: written(own) != before, 120)
        if end < TRADES:
            time.sleep(random.random())
            ohlcv.send_signal(signal.SIGKILL)
            ohlcv.wait()
    eventually(lambda: own.query("SELECT count(*) FROM tick_data") == [(TRADES,)], 120)
    for stream in (tick, ohlcv):
        stream.terminate()
        assert stream.wait(timeout=60) == 0
    own.catch_up("ohlcv")

    trades["event_time"] = pd.to_datetime(trades["time_ms"], unit="ms", utc=True)
    rows = own.query(f"SELECT timestamp, symbol, {', '.join(COLUMNS)} FROM ohlcv_data")
    assert_same_bars(bars_frame(rows), expected_bars(trades))
    assert_same_rollups(own, expected_bars(trades))
    done = own.command("reconcile")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout[:2000]


def assert_same_rollups(stack: Stack, bars: pd.DataFrame) -> None:
    with stack.connect() as connection:
        for rollup in ROLLUPS:
            refresh(connection, rollup)
            rows = connection.execute(f"SELECT timestamp, symbol, {', '.join(COLUMNS)} FROM {rollup.table}").fetchall()
            assert_same_bars(bars_frame(rows), expected_rollup(bars, rollup.table))


def written(stack: Stack) -> tuple:
    return stack.query("SELECT coalesce(sum(ticks), 0) FROM ohlcv_data")[0]
