"""Latency: from a trade's time, at which the simulator sends it, to the commit of its row and of its bar.

`stock-pipeline run` works with all that belongs to it; for the usual way its two streams stay stopped, and two of the
usual kind run instead. PostgreSQL notes the time of every commit. A trade is in its bar from the first commit on that
counts as many ticks of its minute as had come with it.
"""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import psutil
import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.arm import Arm
from benchmarks.market import Market
from benchmarks.parts import processor_seconds, used
from benchmarks.stack import as_superuser, create_usual_tables, tables
from stock_pipeline.services.supervisor import held_path
from stock_pipeline.settings import Settings
from stock_pipeline_tests.compose.containers import Containers
from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.faults.pipeline import Pipeline

SYMBOLS = 50

POLL = 0.02
"""Seconds between two looks at the bars."""

START = 180.0
"""Seconds until the first trade is stored, and in a bar."""

HELD = 2.0
"""Seconds to the row for 99 of 100 trades: where they wait for longer, the rate is more than the machine takes."""

PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}

ROWS = """
SELECT symbol, event_time, extract(EPOCH FROM pg_xact_commit_timestamp(xmin) - event_time)::double precision AS latency
FROM {}
WHERE event_time >= %s AND event_time < %s
ORDER BY {}
"""

VERSIONS = """
SELECT symbol, "timestamp" AS minute, ticks, pg_xact_commit_timestamp(xmin) AS committed_at
FROM {} WHERE "timestamp" > now() - INTERVAL '5 minutes'
"""

ARRIVED = """
SELECT
    (SELECT max(event_time) FROM {}) > %(since)s
    AND (SELECT max("timestamp") FROM {}) >= date_trunc('minute', %(since)s)
"""

BATCHES = """
SELECT stream, round(avg(batch_seconds)::numeric, 3)::float FROM stream_stats
WHERE recorded_at BETWEEN %s AND %s GROUP BY stream
"""


@dataclass(frozen=True)
class Feed:
    """What the simulator sends.

    Attributes:
        rate: trades a second.
        warm_up: seconds of trades before those that count.
        seconds: of trades that count.
        settle: seconds after them; what is not there then counts with what it has waited by then.
    """

    port: int
    rate: int
    warm_up: float
    seconds: float
    settle: float


class BarWatch:
    """Keeps every version of the newest bars that it sees, in a thread."""

    def __init__(self, conninfo: str, table: Identifier) -> None:
        self._conninfo = conninfo
        self._statement = SQL(VERSIONS).format(table)
        self._ended = threading.Event()
        self._seen: dict[tuple[Any, ...], None] = {}
        self._pool = ThreadPoolExecutor(1)

    def _watch(self) -> None:
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            while not self._ended.wait(POLL):
                self._seen |= dict.fromkeys(connection.execute(self._statement).fetchall())

    def __enter__(self) -> "BarWatch":
        self._watching = self._pool.submit(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watching.result()
        self._pool.shutdown()

    def versions(self) -> pd.DataFrame:
        return pd.DataFrame(list(self._seen), columns=["symbol", "minute", "ticks", "committed_at"])


def with_bars(rows: pd.DataFrame, versions: pd.DataFrame) -> pd.DataFrame:
    """The trades with the time of the first commit of a bar that holds them, NaT where nobody saw one.

    Args:
        rows: the trades of whole minutes in the order of their arrival: symbol, event_time, latency.
    """
    minute = rows["event_time"].dt.floor("min")
    trades = rows.assign(minute=minute, ticks=rows.groupby(["symbol", minute]).cumcount() + 1)
    key = ["symbol", "minute"]
    # Where nobody saw a version, pandas cannot tell of what types they are.
    types = {**trades.dtypes[[*key, "ticks"]], "committed_at": trades["event_time"].dtype}
    versions = versions.astype(types).sort_values("ticks")
    return pd.merge_asof(trades.sort_values("ticks"), versions, on="ticks", by=key, direction="forward")


def summary(
    rows: pd.DataFrame, versions: pd.DataFrame, begin: datetime, end: datetime, rate: int, settle: float
) -> dict[str, Any]:
    """stored, in_bar, row, bar and later, as `measure` gives them.

    Args:
        rows: what is stored of the whole minutes since that of `begin`, as for `with_bars`.
        settle: seconds after `end` at which this was so.
    """
    # Where nothing is stored, pandas cannot tell of what types it is.
    trades = with_bars(rows.astype({"event_time": "datetime64[us, UTC]", "latency": float}), versions)
    trades = trades[trades["event_time"] >= begin]
    elapsed = end - begin
    due = rate * elapsed.total_seconds()
    # Nobody knows the times of what is not stored: this is the least that it has waited.
    missing = pd.Series(settle, range(round(due) - len(trades)))
    to_bar = trades["committed_at"].fillna(end + timedelta(seconds=settle)) - trades["event_time"]
    thirds = trades.groupby((trades["event_time"] - begin) // (elapsed / 3))["latency"].median()
    thirds = thirds.reindex(range(3), fill_value=settle)
    return {
        "stored": round(len(trades) / due, 3),
        "in_bar": round(int(trades["committed_at"].count()) / due, 3),
        "row": percentiles(pd.concat([trades["latency"], missing])),
        "bar": percentiles(pd.concat([to_bar.dt.total_seconds(), missing])),
        "later": round(float(thirds[2] / thirds[0]), 2),
    }


def percentiles(seconds: pd.Series) -> dict[str, float]:
    return {name: round(float(np.percentile(seconds, share)), 3) for name, share in PERCENTILES.items()}


@contextmanager
def pipeline(stack: Stack, settings: Settings, way: str, port: int) -> Iterator[Pipeline]:
    """All of `run`, with a feed from `port`; with the usual streams in place of ours where they are wanted."""
    as_superuser(settings, "ALTER SYSTEM SET track_commit_timestamp = on")
    for command in ("down", "up"):
        assert stack.command(command).returncode == 0
    symbols = ",".join(f"BINANCE:S{number}" for number in range(SYMBOLS))
    with ExitStack() as cleanup:
        if way == "usual":
            for name in ("tick-stream", "ohlcv-stream"):
                held_path(settings, name).touch()
        feed = {"FINNHUB_URL": f"ws://127.0.0.1:{port}", "FINNHUB_TOKEN": "benchmark", "SYMBOLS": symbols}
        running = Pipeline.start(stack, Containers(stack, stack.home.parent / "containers"), **feed)
        cleanup.callback(running.stop)
        if way == "usual":
            create_usual_tables(settings)
            for task in ("live_ticks", "live_bars"):
                arm = Arm.start("benchmarks.arms.usual", os.environ, stack.home.parent / f"{task}.log")
                cleanup.callback(arm.stop)
                arm.do(task, settings.kafka_topic)
        yield running


def measure(running: Pipeline, settings: Settings, way: str, feed: Feed) -> dict[str, Any]:
    """Of the trades that were due within the time, when all has settled:

    stored, in_bar: the shares that are there; row, bar: percentiles of the seconds; later: the median to the row in the
    last third of the time, by that in the first (a backlog that grows has more than 1); of ours, processor: the share
    of one that each part used meanwhile, beside: the simulator and the measurement itself, batch_seconds: the mean
    duration of each stream's batches.
    """

    def used_now() -> dict[str, float]:
        if way != "ours":
            return {}
        beside = {"simulator": psutil.Process(simulator.pid), "measurement": psutil.Process()}
        return used(running) | {name: processor_seconds(process) for name, process in beside.items()}

    stack, rate = running.stack, feed.rate
    recording = stack.home.parent / f"{rate}.csv"
    Market(rate * 20, SYMBOLS, time.time_ns() // 1_000_000).frame().to_csv(recording, index=False)
    tick_table, bar_table = tables(way)
    conninfo, since = settings.conninfo("owner"), datetime.now(UTC)
    simulator = stack.start("simulate", "--trades", str(recording), "--rate", str(rate), "--port", str(feed.port))
    try:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            arrived = SQL(ARRIVED).format(tick_table, bar_table)
            eventually(lambda: connection.execute(arrived, {"since": since}).fetchall() == [(True,)], START)
            with BarWatch(conninfo, bar_table) as watch:
                time.sleep(feed.warm_up)
                begin, before = datetime.now(UTC), used_now()
                time.sleep(feed.seconds)
                end, after = datetime.now(UTC), used_now()
                time.sleep(feed.settle)
            order = Identifier("seq" if way == "ours" else "event_time")
            statement = SQL(ROWS).format(tick_table, order)
            found = connection.execute(statement, [begin.replace(second=0, microsecond=0), end]).fetchall()
            batches = connection.execute(BATCHES, [begin, end]).fetchall()
            assert way == "ours" or not batches, "our streams ran beside the usual way"
    finally:
        simulator.terminate()
        simulator.wait(30)
        stack.started.remove(simulator)
    rows = pd.DataFrame(found, columns=["symbol", "event_time", "latency"])
    seconds = (end - begin).total_seconds()
    processor = {part: round((after[part] - before[part]) / seconds, 3) for part in after}
    beside = {part: processor.pop(part) for part in ("simulator", "measurement") if part in processor}
    delays = summary(rows, watch.versions(), begin, end, rate, feed.settle)
    return {**delays, "processor": processor, "beside": beside, "batch_seconds": dict(batches)}
