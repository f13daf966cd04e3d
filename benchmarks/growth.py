"""How the streams' catch-up changes with what is stored, with the number of symbols, and with partitions and cores."""

import os
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from statistics import median

import psycopg

from benchmarks import dashboards
from benchmarks.arm import Arm
from benchmarks.market import Market
from benchmarks.rollups_and_checks import fill
from benchmarks.stack import as_superuser
from stock_pipeline.settings import Settings

TRADES = 1_000_000

LITTLE = 500_000
"""The same, where it is to change little of what is stored."""

ROUNDS = 5

STORED = (1_000_000, 10_000_000, 100_000_000)
SYMBOLS = (50, 500, 5_000)
PARTITIONS = (1, 2, 4)

Curve = Mapping[int, Mapping[str, float]]
"""For each value trades a second of ticks and of bars, medians."""

Milliseconds = Mapping[str, Mapping[str, float]]
"""Of each query."""

_numbers = count()


def speeds(settings: Settings, arm: Arm, symbols: int, partitions: int, trades: int) -> Iterator[dict[str, float]]:
    """Trades a second of ticks and of bars in each round, the first of which warms up; nothing is deleted."""
    for _ in range(ROUNDS + 1):
        # Other times, so that no trade is stored already.
        topic = f"growth-{next(_numbers)}"
        Market(trades, symbols, time.time_ns() // 1_000_000).send(settings, topic, partitions)
        as_superuser(settings, "CHECKPOINT")
        yield {task: trades / arm.do(task, topic) for task in ("ticks", "bars")}


def medians(
    settings: Settings, arm: Arm, symbols: int = 50, partitions: int = 4, trades: int = TRADES
) -> dict[str, float]:
    found = list(speeds(settings, arm, symbols, partitions, trades))[1:]
    return {task: median(round_[task] for round_ in found) for task in ("ticks", "bars")}


def by_stored(settings: Settings, folder: Path) -> tuple[Mapping[int, Milliseconds], Curve]:
    """The dashboards' queries, and the catch-up, over so many ticks of 24 hours."""
    queries, curve = {}, {}
    for stored in STORED:
        with psycopg.connect(settings.conninfo("owner"), autocommit=True) as owner:
            fill(owner, stored)
            queries[stored] = dashboards.measure(owner)
        arm = Arm.start("benchmarks.arms.ours", os.environ, folder / "growth.log")
        curve[stored] = medians(settings, arm, trades=LITTLE)
        arm.stop()
    return queries, curve


def by_symbols(settings: Settings, folder: Path) -> Curve:
    arm = Arm.start("benchmarks.arms.ours", os.environ, folder / "growth.log")
    curve = {symbols: medians(settings, arm, symbols=symbols) for symbols in SYMBOLS}
    arm.stop()
    return curve


def by_partitions(settings: Settings, folder: Path) -> Curve:
    """As many partitions as Spark has threads."""
    curve = {}
    for partitions in PARTITIONS:
        environment = {**os.environ, "SPARK_MASTER": f"local[{partitions}]"}
        arm = Arm.start("benchmarks.arms.ours", environment, folder / "growth.log")
        curve[partitions] = medians(settings, arm, partitions=partitions)
        arm.stop()
    return curve
