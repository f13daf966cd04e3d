"""What processors a rate of trades takes, and which part ends first: the tables of docs/scaling.md, from latest.json.

    .venv/bin/python -m benchmarks.capacity

A stream's work for a trade is measured in catch-up, where it has both processors: those, divided by the trades a
second. A bar's work is the slope of the bars' catch-up over the number of symbols. Kafka and TimescaleDB are measured
live, at the highest rate that two cores hold, and the producer with nothing but Kafka beside it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.growth import TRADES
from benchmarks.market import RATE
from benchmarks.report import FOLDER, table
from spark.session import SHUFFLE_PARTITIONS

PROCESSORS = 2
"""Of the machine that was measured."""

SYMBOLS = (50, 500, 5_000, 50_000)
RATES = (100, 1_000, 10_000, 100_000, 1_000_000)

BATCHES = {"tick stream": 0.060, "ohlcv stream": 0.160}
"""Seconds of a processor that a batch takes for itself: measured by hand, live at 1,000 trades/s, 2026-11-29."""

LONG = 10.0
"""Seconds of a batch of the ohlcv stream that has more bars to write than it can within one."""

HELD = 5.0
"""Seconds: where 99 of 100 rows do not come within them, the rate is more than two cores hold."""

FILL = 0.7
"""Of its processors that a machine gives to trades: the rest is Dagster's, Grafana's, compression's, and for bursts."""


@dataclass(frozen=True)
class Work:
    """Seconds of a processor: of each part for a trade, and for a bar that a batch touches."""

    parts: Mapping[str, float]
    bar: float

    @classmethod
    def measured(cls, results: Mapping[str, Any]) -> "Work":
        """From latest.json."""
        catch_up, growth = results["catch_up"], results["growth"]["catch_up"]
        live = {int(name.removeprefix("r")): found for name, found in results["latency"].items()}
        highest = max(rate for rate, found in live.items() if found["row"]["p99"] < HELD)
        processor = live[highest]["processor"]
        # One connection keeps one processor busy.
        copy = 1 / catch_up["ticks"]["limit"]
        slope, trade = _bars(growth["symbols"])
        parts = {
            "producer": 1 / results["producer"]["100"],
            "kafka": processor["kafka"] / highest,
            "tick stream": PROCESSORS / catch_up["ticks"]["ours"] - copy,
            "TimescaleDB": processor["timescaledb"] / highest,
            "ohlcv stream": trade,
        }
        return cls(parts, slope)

    def processors(self, symbols: int, rate: int, batch: float = 1.0) -> dict[str, float]:
        """What each part takes with batches of so many seconds; `bars`: for the bars that they touch."""
        used = {part: rate * seconds + BATCHES.get(part, 0.0) / batch for part, seconds in self.parts.items()}
        touched = symbols * (1 - math.exp(-rate * batch / symbols))
        return {**used, "bars": touched * self.bar / batch}


def _bars(curve: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """Seconds of a processor for a bar, and for a trade: a line through the catch-up with so many symbols."""
    minutes = math.ceil(TRADES / RATE / 60)
    bars_per_trade = [int(symbols) * minutes / TRADES for symbols in curve]
    seconds = [PROCESSORS / speeds["bars"] for speeds in curve.values()]
    slope, trade = np.polyfit(bars_per_trade, seconds, 1)
    return float(slope), float(trade)


def row(work: Work, symbols: int, rate: int) -> list[str]:
    """What a rate takes, which part of it most, and with what it goes on where two processors do not do."""
    used = work.processors(symbols, rate)
    total = sum(used.values())
    if total <= PROCESSORS * FILL:
        first = goes_on = "–"
    else:
        first = max(used, key=lambda part: used[part])
        steps, needed = [], used
        if used["bars"] > SHUFFLE_PARTITIONS * FILL:
            # Its state lies in so many partitions: more processors would not help it.
            needed = {**used, "bars": work.processors(symbols, rate, LONG)["bars"]}
            steps.append(f"batches of {LONG:.0f} s: bars {needed['bars']:.1f}")
        streams = needed["tick stream"] + needed["ohlcv stream"] + needed["bars"]
        processors = sum(needed.values()) / FILL
        steps.append(f"{math.ceil(processors)} processors, {math.ceil(streams / FILL)} of them Spark's")
        if used["producer"] > FILL:
            steps.append(f"{math.ceil(used['producer'] / FILL)} producers")
        goes_on = "; ".join(steps)
    return [f"{symbols:,}", f"{rate:,}", *(f"{share:.2f}" for share in used.values()), f"{total:.1f}", first, goes_on]


def main() -> None:
    work = Work.measured(json.loads((FOLDER / "latest.json").read_text()))
    costs = [[part, f"{seconds * 1e6:.1f}"] for part, seconds in work.parts.items()]
    print("\n".join(table(["part", "µs of a processor for a trade"], [*costs, ["a bar", f"{work.bar * 1e6:.1f}"]])))
    head = ["symbols", "trades/s", *work.parts, "bars", "all", "most", "goes on with"]
    print("\n".join(table(head, [row(work, symbols, rate) for symbols in SYMBOLS for rate in RATES])))


if __name__ == "__main__":
    main()
