"""How the streams' catch-up changes with what is stored, with the number of symbols, and with partitions and cores."""

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from benchmarks import dashboards
from benchmarks.arm import Arm
from benchmarks.market import Market
from benchmarks.rollups_and_checks import fill
from benchmarks.stack import as_superuser
from stock_pipeline.database import init_db
from stock_pipeline.settings import Settings

TRADES = 1_000_000

LITTLE = 500_000
"""The same, where it is to change little of what is stored."""

ROUNDS = 5

STORED = (1_000_000, 10_000_000, 100_000_000)
SYMBOLS = (50, 500, 5_000)
PARTITIONS = (1, 2, 4)

Curve = Mapping[int, Mapping[str, Any]]
"""For each value trades a second of ticks and of bars, medians; and their spread: of each the least and the most."""

Milliseconds = Mapping[str, Mapping[str, float]]
"""Of each query."""

_numbers = count()


@dataclass(frozen=True)
class Point:
    """One point of a curve: who catches up, and with what."""

    arm: Arm
    symbols: int = 50
    partitions: int = 4
    trades: int = TRADES

    def catch_up(self, settings: Settings) -> dict[str, float]:
        """Trades a second of ticks and of bars; nothing is deleted."""
        # Other times, so that no trade is stored already.
        topic = f"growth-{next(_numbers)}"
        Market(self.trades, self.symbols, time.time_ns() // 1_000_000).send(settings, topic, self.partitions)
        as_superuser(settings, "CHECKPOINT")
        return {task: self.trades / self.arm.do(task, topic) for task in ("ticks", "bars")}


def interleaved(settings: Settings, points: Mapping[int, Point]) -> Curve:
    """Rounds over all points, the first of which warms up: the machine's speed changes from one minute to the next."""
    rounds = [{value: point.catch_up(settings) for value, point in points.items()} for _ in range(ROUNDS + 1)][1:]
    curve: dict[int, dict[str, Any]] = {}
    for value in points:
        found = {task: [round_[value][task] for round_ in rounds] for task in ("ticks", "bars")}
        curve[value] = {task: median(speeds) for task, speeds in found.items()}
        curve[value]["spread"] = {task: [min(speeds), max(speeds)] for task, speeds in found.items()}
    return curve


def by_stored(settings: Settings, folder: Path) -> tuple[Mapping[int, Milliseconds], Curve]:
    """The dashboards' queries, and the catch-up, over so many ticks of 24 hours, in a database each."""
    queries, points = {}, {}
    with ExitStack() as cleanup:
        for stored in STORED:
            database = settings.model_copy(update={"db_url": f"{settings.db_url}_{stored}"})
            init_db(database)
            with psycopg.connect(database.conninfo("owner"), autocommit=True) as owner:
                fill(owner, stored)
            queries[stored] = dashboards.measure(database)
            points[stored] = Point(_arm(cleanup, folder, DB_URL=database.db_url), trades=LITTLE)
        return queries, interleaved(settings, points)


def by_symbols(settings: Settings, folder: Path) -> Curve:
    with ExitStack() as cleanup:
        arm = _arm(cleanup, folder)
        return interleaved(settings, {symbols: Point(arm, symbols=symbols) for symbols in SYMBOLS})


def by_partitions(settings: Settings, folder: Path) -> Curve:
    """As many partitions as Spark has threads."""
    with ExitStack() as cleanup:
        return interleaved(
            settings,
            {
                partitions: Point(_arm(cleanup, folder, SPARK_MASTER=f"local[{partitions}]"), partitions=partitions)
                for partitions in PARTITIONS
            },
        )


def _arm(cleanup: ExitStack, folder: Path, **environment: str) -> Arm:
    arm = Arm.start("benchmarks.arms.ours", {**os.environ, **environment}, folder / "growth.log")
    cleanup.callback(arm.stop)
    return arm
