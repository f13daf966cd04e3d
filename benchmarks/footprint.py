"""What `make run` takes from a machine: memory and processor time of each part, without trades and with some."""

import time

import pandas as pd

from benchmarks.market import Market
from benchmarks.memory_limits import megabytes
from benchmarks.parts import used
from stock_pipeline.local.component import free_port
from stock_pipeline_tests.compose.containers import Containers
from stock_pipeline_tests.conftest import Stack
from stock_pipeline_tests.faults.faults import processes_by_part
from stock_pipeline_tests.faults.pipeline import Pipeline

SYMBOLS = 50

WARM_UP = 240.0
"""Seconds until what happens once, at the start, is over."""

DURATION = 300.0
"""Seconds that are measured."""


def measure(stack: Stack, rate: int) -> pd.DataFrame:
    """For each part, and all, MB, the mean of the time, most, the most at once, and processor, the share of one.

    Args:
        rate: trades a second; 0: a market that is closed.
    """
    port = free_port()
    feed = {"FINNHUB_URL": f"ws://127.0.0.1:{port}", "FINNHUB_TOKEN": "benchmark"}
    recording = stack.home.parent / "trades.csv"
    Market(max(rate, 1) * 60, SYMBOLS, time.time_ns() // 1_000_000).frame().to_csv(recording, index=False)
    simulator = ["simulate", "--trades", str(recording), "--rate", str(rate or 1), "--port", str(port)]
    symbols = [f"BINANCE:S{number}" for number in range(SYMBOLS)] if rate else ["BINANCE:CLOSED"]
    stack.start(*simulator)
    pipeline = Pipeline.start(
        stack, Containers(stack, stack.home.parent / "containers"), **feed, SYMBOLS=",".join(symbols)
    )
    try:
        time.sleep(WARM_UP)
        before, began = used(pipeline), time.monotonic()
        samples = []
        while time.monotonic() - began < DURATION:
            samples.append({part: sum(map(megabytes, family)) for part, family in processes_by_part(pipeline).items()})
            time.sleep(5)
        after, elapsed = used(pipeline), time.monotonic() - began
    finally:
        pipeline.stop()
        stack.stop_started()
    processor = pd.Series({part: (after[part] - before[part]) / elapsed for part in after})
    held = pd.DataFrame(samples)
    processor["all"], held["all"] = processor.sum(), held.sum(axis="columns")
    return pd.DataFrame({"MB": held.mean(), "most": held.max(), "processor": processor})
