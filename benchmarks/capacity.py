"""What processors a rate of trades takes, and which part ends first: the tables of docs/scaling.md, from latest.json.

    .venv/bin/python -m benchmarks.capacity

What a trade takes of a processor is measured of the streams in catch-up, of the producer from frame to acknowledgement;
of Kafka and TimescaleDB it is the slope over the rates that two cores hold, live, and what they take at any rate is
where that line begins. A bar's is the slope over the number of symbols in catch-up, what a batch takes for itself is
measured live.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.growth import TRADES
from benchmarks.latency import HELD
from benchmarks.market import RATE
from benchmarks.report import FOLDER, table
from spark.session import SHUFFLE_PARTITIONS

PROCESSORS = 2
"""Of the machine that was measured."""

SYMBOLS = (50, 500, 5_000, 50_000)
RATES = (100, 1_000, 10_000, 100_000, 1_000_000)

STREAMS = {"tick stream": "tick-stream", "ohlcv stream": "ohlcv-stream"}
SERVERS = {"kafka": "kafka", "TimescaleDB": "timescaledb"}

SMALL = 1_000
"""Trades a second at which batches are small."""

LONG = 10.0
"""Seconds of a batch of the ohlcv stream that has more bars to write than it can within one."""

FILL = 0.7
"""Of its processors that a machine gives to trades: the rest is Dagster's, Grafana's, compression's, and for bursts."""


@dataclass(frozen=True)
class Work:
    """Seconds of a processor.

    Attributes:
        trade: of each part for a trade.
        always: of each server within a second, whatever the rate.
        batch: of each stream for a batch, whatever is in it.
        bar: of the ohlcv stream for a bar that a batch touches.
        bar_row: of TimescaleDB for the same.
    """

    trade: Mapping[str, float]
    always: Mapping[str, float]
    batch: Mapping[str, float]
    bar: float
    bar_row: float

    @classmethod
    def measured(cls, results: Mapping[str, Any]) -> "Work":
        """From latest.json.

        Raises:
            ValueError: that is of a quick run, which has too few rates.
        """
        symbols = results["growth"]["catch_up"]["symbols"]
        live = {int(name.removeprefix("r")): found for name, found in results["latency"].items()}
        held = [rate for rate, found in live.items() if found["row"]["p99"] < HELD]
        if len(held) < 2:
            raise ValueError(f"latency: {len(held)} rates that were held; `make bench` without QUICK measures more")
        servers = {
            part: np.polyfit(held, [live[rate]["processor"][service] for rate in held], 1)
            for part, service in SERVERS.items()
        }
        bar, ohlcv = _bars(symbols, "stream")
        trade = {
            "producer": results["producer"]["microseconds"]["100"] / 1e6,
            "kafka": float(servers["kafka"][0]),
            "tick stream": symbols["50"]["microseconds"]["ticks"]["stream"] / 1e6,
            "TimescaleDB": float(servers["TimescaleDB"][0]),
            "ohlcv stream": ohlcv,
        }
        always = {part: float(line[1]) for part, line in servers.items()}
        batch = {}
        for stream, service in STREAMS.items():
            share, seconds = (live[SMALL][figure][service] for figure in ("processor", "batch_seconds"))
            batch[stream] = (share - SMALL * trade[stream]) * seconds
        return cls(trade, always, batch, bar, _bars(symbols, "timescaledb")[0])

    def processors(self, symbols: int, rate: int, batch: float = 1.0) -> dict[str, float]:
        """What each part takes with batches of so many seconds; `bars` of the ohlcv stream and `rows` of TimescaleDB:
        for the bars that they touch.
        """
        used = {
            part: rate * seconds + self.always.get(part, 0.0) + self.batch.get(part, 0.0) / batch
            for part, seconds in self.trade.items()
        }
        touched = symbols * (1 - math.exp(-rate * batch / symbols)) / batch
        return {**used, "bars": touched * self.bar, "rows": touched * self.bar_row}


def _bars(curve: Mapping[str, Mapping[str, Any]], part: str) -> tuple[float, float]:
    """Seconds of a processor for a bar, and for a trade: a line through the catch-up with so many symbols."""
    minutes = math.ceil(TRADES / RATE / 60)
    bars_per_trade = [int(symbols) * minutes / TRADES for symbols in curve]
    seconds = [point["microseconds"]["bars"][part] / 1e6 for point in curve.values()]
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
            longer = work.processors(symbols, rate, LONG)
            needed = {**used, "bars": longer["bars"], "rows": longer["rows"]}
            steps.append(f"batches of {LONG:.0f} s: bars {needed['bars']:.1f}, rows {needed['rows']:.1f}")
        streams = needed["tick stream"] + needed["ohlcv stream"] + needed["bars"]
        processors = sum(needed.values()) / FILL
        steps.append(f"{math.ceil(processors)} processors, {math.ceil(streams / FILL)} of them Spark's")
        if used["producer"] > FILL:
            steps.append(f"{math.ceil(used['producer'] / FILL)} producers")
        goes_on = "; ".join(steps)
    return [f"{symbols:,}", f"{rate:,}", *(f"{share:.2f}" for share in used.values()), f"{total:.1f}", first, goes_on]


def main() -> None:
    work = Work.measured(json.loads((FOLDER / "latest.json").read_text()))
    costs = {
        **{f"{part}, a trade": seconds for part, seconds in work.trade.items()},
        **{f"{part}, a second": seconds for part, seconds in work.always.items()},
        **{f"{stream}, a batch": seconds for stream, seconds in work.batch.items()},
        "ohlcv stream, a bar in a batch": work.bar,
        "TimescaleDB, a bar in a batch": work.bar_row,
    }
    rows = [[part, f"{seconds * 1e6:,.{1 if seconds < 1e-3 else 0}f}"] for part, seconds in costs.items()]
    print("\n".join(table(["part", "µs of a processor"], rows)))
    head = ["symbols", "trades/s", *work.trade, "bars", "rows", "all", "most", "goes on with"]
    print("\n".join(table(head, [row(work, symbols, rate) for symbols in SYMBOLS for rate in RATES])))


if __name__ == "__main__":
    main()
