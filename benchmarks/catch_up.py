"""Catch-up: how fast a topic's trades get into tick_data, and their bars into ohlcv_data, beside other ways to do it.

The ways take turns in rounds, each in a process of its own that has started and warmed up before. What each wrote is
compared with what pandas makes of the same trades.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks import quix_environment
from benchmarks.arm import Arm
from benchmarks.market import Market
from benchmarks.rounds import collect
from benchmarks.stack import as_superuser, create_usual_tables
from stock_pipeline.settings import Settings

MODULES = {"ours": "ours", "usual": "usual", "python": "one_process", "quixstreams": "quix"}
"""Of each way its module in benchmarks.arms."""

TABLES = {"ticks": {"usual": "usual_tick"}, "bars": {"usual": "usual_bar"}}
"""Where it writes, where that is not the product's own table."""

SLOW = {("ticks", "quixstreams"), ("bars", "quixstreams")}
"""What gets a topic with an eighth of the trades: it takes them one by one, so its speed is the same for any number."""

LIMITS = {"limit": 1, "limit_of_two": 2}
"""By how many connections COPY writes."""

SYMBOLS, PARTITIONS = 50, 4

CLEAR = """
TRUNCATE tick_data, ohlcv_data, stream_offset, late_minute, stale_bar, benchmark.usual_tick, benchmark.usual_bar
"""

BARS = "SELECT timestamp, symbol, open, high, low, close, volume FROM {} ORDER BY timestamp, symbol"

OUT = """
COPY (
    SELECT symbol, price, event_time, volume, seq, conditions, received_at FROM tick_data
    WHERE hashtext(symbol) & 1 = {} ORDER BY symbol, event_time, seq
) TO STDOUT (FORMAT BINARY)
"""

IN = "COPY tick_data (symbol, price, event_time, volume, seq, conditions, received_at) FROM STDIN (FORMAT BINARY)"


@contextmanager
def arms(settings: Settings, market: Market, folder: Path) -> Iterator[Mapping[str, Arm]]:
    """The processes of all ways."""
    host, port = settings.db_address
    user, password = settings.role("owner")
    quix = {
        "schema": settings.avro_schema,
        "trades": market.trades,
        "kafka": settings.kafka_bootstrap_servers,
        "postgresql": {"host": host, "port": port, "dbname": settings.db_name, "user": user, "password": password},
    }
    with ExitStack() as cleanup:
        started = {}
        for name, module in MODULES.items():
            python = str(quix_environment.python()) if module == "quix" else sys.executable
            environment = {**os.environ, "QUIX": json.dumps(quix)}
            started[name] = Arm.start(f"benchmarks.arms.{module}", environment, folder / f"{name}.log", python)
            cleanup.callback(started[name].stop)
        yield started


class CatchUp:
    """One comparison, over a stack that runs and holds nothing else; `small` is for what is SLOW."""

    def __init__(self, settings: Settings, market: Market, small: Market, arms: Mapping[str, Arm]) -> None:
        self._settings = settings
        self._market = market
        self._small = small
        self._arms = arms

    def round(self, _number: int) -> Iterator[tuple[str, str, float]]:
        """Of each way the task, its name, and the trades per second."""
        for task, tables in TABLES.items():
            for name, arm in self._arms.items():
                market = self._small if (task, name) in SLOW else self._market
                self._clear()
                seconds = arm.do(task, topic_of(market))
                wrong = self._wrong(task, tables.get(name), market)
                if wrong:
                    print(f"{name}, {task}: {wrong}", flush=True)
                    assert name != "ours", wrong
                yield task, name, market.trades / seconds
                if (task, name) == ("ticks", "ours"):
                    for name_of_limit, connections in LIMITS.items():
                        yield task, name_of_limit, self._market.trades / self._copy(connections)
        for name, way in (("limit", "ours"), ("spark_decode", "usual")):
            yield "bars", name, self._market.trades / self._arms[way].do("decode", topic_of(self._market))

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._settings.conninfo("owner"))

    def _clear(self) -> None:
        with self._connect() as connection:
            connection.execute(CLEAR)
        as_superuser(self._settings, "CHECKPOINT")

    def _wrong(self, task: str, table: str | None, market: Market) -> str:
        """In what the tables differ from what they ought to hold; empty where in nothing."""
        with self._connect() as connection:
            if task == "ticks":
                name = Identifier("benchmark", table) if table else Identifier("tick_data")
                rows = connection.execute(SQL("SELECT count(*) FROM {}").format(name)).fetchall()
                return "" if rows == [(market.trades,)] else f"{rows[0][0]:,} rows"
            name, expected = Identifier("benchmark", table) if table else Identifier("ohlcv_data"), market.bars()
            columns = ["timestamp", "symbol", *expected.columns]
            found = pd.DataFrame(connection.execute(SQL(BARS).format(name)).fetchall(), columns=columns)
        # A bar that only one of them has differs, too.
        found, expected = found.set_index(["timestamp", "symbol"]).align(expected)
        differ = ~np.isclose(found, expected, rtol=1e-9, atol=0).all(axis=1)
        return f"{differ.sum():,} of {len(expected):,} bars differ" if differ.any() else ""

    def _copy(self, connections: int) -> float:
        """Seconds that COPY takes for the rows that tick_data holds, sorted and encoded, all of them anew."""
        halves = [self._read(half) for half in range(2)]
        self._clear()
        began = time.perf_counter()
        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(self._write, halves))
        return time.perf_counter() - began

    def _read(self, half: int) -> bytes:
        with self._connect() as connection, connection.cursor().copy(SQL(OUT).format(half)) as source:
            return b"".join(source)

    def _write(self, rows: bytes) -> None:
        with self._connect() as connection, connection.cursor().copy(IN.encode()) as target:
            target.write(rows)


def topic_of(market: Market) -> str:
    return f"benchmark-{market.trades}"


def compare(settings: Settings, folder: Path, trades: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Trades per second of each task and way, a figure for each round after the first, which warms up."""
    market, small = (Market(number, SYMBOLS, time.time_ns() // 1_000_000) for number in (trades, trades // 8))
    for sent in (market, small):
        sent.send(settings, topic_of(sent), PARTITIONS)
    create_usual_tables(settings)
    with arms(settings, small, folder) as started:
        return collect(CatchUp(settings, market, small, started).round, rounds)
