"""Catch-up: how fast a topic's trades get into tick_data, and their bars into ohlcv_data, beside other ways to do it.

The ways take turns in rounds, each in a process of its own that has started and warmed up before. What each wrote is
compared with what pandas makes of the same trades, after every round.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import psycopg
from psycopg.sql import SQL

from benchmarks import quix_environment
from benchmarks.arm import Arm
from benchmarks.market import Market
from benchmarks.rounds import TASKS, collect, in_turn
from benchmarks.stack import as_superuser, create_usual_tables, tables
from stock_pipeline.settings import Settings

MODULES = {"ours": "ours", "usual": "usual", "python": "one_process", "quixstreams": "quix"}
"""Of each way its module in benchmarks.arms."""

SLOW = {("ticks", "quixstreams"), ("bars", "quixstreams")}
"""What gets a topic with an eighth of the trades: it takes them one by one, so its speed is the same for any number."""

LIMITS = {"limit": 1, "limit_of_two": 2}
"""By how many connections COPY writes."""

SYMBOLS, PARTITIONS = 50, 4

CLEAR = """
TRUNCATE tick_data, ohlcv_data, stream_offset, late_minute, stale_bar, benchmark.usual_tick, benchmark.usual_bar
"""

HELD = {
    "ticks": """
        SELECT symbol, count(*), sum(price), sum(price * volume), sum(mod(extract(EPOCH FROM event_time), 86400))
        FROM {}
        GROUP BY symbol
    """,
    "bars": "SELECT timestamp, symbol, open, high, low, close, volume, ticks FROM {}",
}
"""What a task's table holds: of ticks, sums for each symbol."""

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
            # What the streams say for themselves: a bar that is written again is no restatement.
            environment = {**os.environ, "QUIX": json.dumps(quix), "PGOPTIONS": "-c stock_pipeline.cause=build"}
            started[name] = Arm.start(f"benchmarks.arms.{module}", environment, folder / f"{name}.log", python)
            cleanup.callback(started[name].stop)
        yield started


class CatchUp:
    """One comparison, over a stack that runs and holds nothing else; `small` is for what is SLOW.

    Attributes:
        wrong: by task and way, how many symbols' ticks, or bars, were not as they ought to be, in all rounds.
    """

    def __init__(self, settings: Settings, market: Market, small: Market, arms: Mapping[str, Arm]) -> None:
        self._settings = settings
        self._market = market
        self._small = small
        self._arms = arms
        self.wrong: dict[str, Counter[str]] = {task: Counter() for task in TASKS}

    def round(self, number: int) -> Iterator[tuple[str, str, float]]:
        """Of each way the task, its name, and the trades per second."""
        for task in TASKS:
            for name in in_turn(self._arms, number):
                market = self._small if (task, name) in SLOW else self._market
                self._clear()
                seconds = self._arms[name].do(task, topic_of(market))
                wrong = self._wrong(task, name, market)
                assert name != "ours" or not wrong, f"{task}: {wrong} are wrong"
                self.wrong[task][name] += wrong
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

    def _wrong(self, task: str, way: str, market: Market) -> int:
        """How many symbols' ticks, or bars, differ from what they ought to be, or are only in one of them."""
        table, expected = dict(zip(TASKS, tables(way), strict=True))[task], expected_of(market, task)
        columns = [*expected.index.names, *expected.columns]
        with self._connect() as connection:
            found = pd.DataFrame(connection.execute(SQL(HELD[task]).format(table)).fetchall(), columns=columns)
        return differing(found.set_index(expected.index.names), expected)

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


@cache
def expected_of(market: Market, task: str) -> pd.DataFrame:
    """What pandas makes of a market's trades, in the columns of HELD: the same after every round."""
    return market.ticks() if task == "ticks" else market.bars()


def differing(found: pd.DataFrame, expected: pd.DataFrame) -> int:
    """In how many rows the two differ; one that only one of them has differs, too."""
    found, expected = found.astype(expected.dtypes).align(expected)
    return int((~np.isclose(found, expected, rtol=1e-9, atol=0).all(axis=1)).sum())


def compare(
    settings: Settings, folder: Path, trades: int, rounds: int
) -> tuple[dict[str, dict[str, list[float]]], dict[str, Counter[str]]]:
    """Trades per second of each task and way, a figure for each round after the first, which warms up; and what was
    wrong, as CatchUp says it."""
    market, small = (Market(number, SYMBOLS, time.time_ns() // 1_000_000) for number in (trades, trades // 8))
    for sent in (market, small):
        sent.send(settings, topic_of(sent), PARTITIONS)
    create_usual_tables(settings)
    with arms(settings, small, folder) as started:
        catch_up = CatchUp(settings, market, small, started)
        return collect(catch_up.round, rounds), catch_up.wrong
