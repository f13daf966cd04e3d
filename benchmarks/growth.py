"""How the streams' catch-up changes with what is stored, with the number of symbols, and with partitions and workers.

Needs 30 GB of disk for 111 million ticks.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import dashboards
from benchmarks.arm import Arm
from benchmarks.market import Market
from benchmarks.parts import family_seconds
from benchmarks.rollups_and_checks import fill
from benchmarks.rounds import TASKS, collect, in_turn, medians
from benchmarks.stack import as_superuser
from stock_pipeline.database import init_db
from stock_pipeline.settings import Settings

TRADES = 1_000_000

LITTLE = 500_000
"""The same over what is stored, to which each round adds it: one million becomes four."""

EMPTY = "TRUNCATE tick_data, ohlcv_data"

ONE_CHUNK = "SELECT set_chunk_time_interval('tick_data', INTERVAL '10000 days')"
"""Until 2052: new trades go into the index of all that is stored, whatever the hour; else it is that of the UTC day."""

ARRIVED = {
    "ticks": "SELECT count(*) FROM tick_data WHERE event_time >= %s",
    "bars": "SELECT coalesce(sum(ticks), 0) FROM ohlcv_data WHERE \"timestamp\" >= date_trunc('minute', %s)",
}
"""How many trades are in them, of those that came since."""

STORED = (1_000_000, 10_000_000, 100_000_000)
SYMBOLS = (50, 500, 5_000)
PARTITIONS = (1, 2, 4)

Curve = Mapping[int, Mapping[str, Any]]
"""For each value trades a second of ticks and of bars, medians; rounds: all figures; and microseconds: by task what a
trade takes of a processor, medians, in the stream and in TimescaleDB."""

Milliseconds = Mapping[str, Mapping[str, float]]
"""Of the queries of each panel."""

_numbers = count()


@dataclass(frozen=True)
class Point:
    """One point of a curve: who catches up, with what, and into which database, emptied before or as it is."""

    arm: Arm
    database: Settings
    symbols: int = 50
    partitions: int = 4
    trades: int = TRADES
    from_empty: bool = True

    def catch_up(self) -> Iterator[tuple[str, float, dict[str, float]]]:
        """Of ticks and of bars, trades a second, and microseconds of a processor for each."""
        topic = f"growth-{next(_numbers)}"
        # Other times each time, so that no trade is stored already.
        market = Market(self.trades, self.symbols, time.time_ns() // 1_000_000)
        market.send(self.database, topic, self.partitions)
        if self.from_empty:
            with psycopg.connect(self.database.conninfo("owner")) as owner:
                owner.execute(EMPTY)
        processes = {"stream": self.arm.process.pid, "timescaledb": _database_pid(self.database)}
        for task in TASKS:
            as_superuser(self.database, "CHECKPOINT")
            stored = self._arrived(task, market)
            before = {part: family_seconds(pid) for part, pid in processes.items()}
            seconds = self.arm.do(task, topic)
            used = {part: (family_seconds(pid) - before[part]) / self.trades * 1e6 for part, pid in processes.items()}
            # Over what is stored, bars of the same minutes are there already, and stay where they have more ticks.
            if self.from_empty or task == "ticks":
                assert self._arrived(task, market) - stored == self.trades, f"{task}: trades are missing"
            yield task, self.trades / seconds, used

    def _arrived(self, task: str, market: Market) -> int:
        with psycopg.connect(self.database.conninfo("owner")) as owner:
            [(number,)] = owner.execute(ARRIVED[task].encode(), [market.begin]).fetchall()
        return int(number)


def interleaved(points: Mapping[int, Point]) -> Curve:
    """Rounds over all points, the first of which warms up."""
    used: dict[tuple[int, str], list[dict[str, float]]] = {}

    def one_round(number: int) -> Iterator[tuple[int, str, float]]:
        for value in in_turn(points, number):
            for task, speed, microseconds in points[value].catch_up():
                used.setdefault((value, task), []).append(microseconds)
                yield value, task, speed

    def microseconds(value: int, task: str) -> dict[str, float]:
        after_warm_up = used[value, task][1:]
        return medians({part: [figures[part] for figures in after_warm_up] for part in after_warm_up[0]})

    found = collect(one_round)
    return {
        value: {
            **medians(found[value]),
            "rounds": found[value],
            "microseconds": {task: microseconds(value, task) for task in TASKS},
        }
        for value in points
    }


def _database_pid(settings: Settings) -> int:
    return int(json.loads((settings.home / "run" / "timescaledb.json").read_text())["pid"])


def by_stored(settings: Settings, folder: Path) -> tuple[Mapping[int, Milliseconds], Curve]:
    """The dashboards' queries, and the catch-up, over so many ticks of 24 hours, in a database each."""
    databases = {n: settings.model_copy(update={"db_url": f"{settings.db_url}_{n}"}) for n in STORED}
    queries = {}
    for stored, database in databases.items():
        init_db(database)
        with psycopg.connect(database.conninfo("owner"), autocommit=True) as owner:
            owner.execute(ONE_CHUNK)
            end = fill(owner, stored)
        queries[stored] = dashboards.measure(database, end)
    with ExitStack() as cleanup:
        arms = {stored: _arm(cleanup, folder, DB_URL=database.db_url) for stored, database in databases.items()}
        points = {n: Point(arm, databases[n], trades=LITTLE, from_empty=False) for n, arm in arms.items()}
        return queries, interleaved(points)


def by_symbols(settings: Settings, folder: Path) -> Curve:
    with ExitStack() as cleanup:
        arm = _arm(cleanup, folder)
        return interleaved({symbols: Point(arm, settings, symbols=symbols) for symbols in SYMBOLS})


def by_partitions(settings: Settings, folder: Path) -> Curve:
    """Spark has as many threads, with a Python worker each, as the topic has partitions."""
    with ExitStack() as cleanup:
        arms = {number: _arm(cleanup, folder, SPARK_MASTER=f"local[{number}]") for number in PARTITIONS}
        return interleaved({number: Point(arm, settings, partitions=number) for number, arm in arms.items()})


def _arm(cleanup: ExitStack, folder: Path, **environment: str) -> Arm:
    arm = Arm.start("benchmarks.arms.ours", {**os.environ, **environment}, folder / "growth.log")
    cleanup.callback(arm.stop)
    return arm
