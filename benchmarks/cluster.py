"""Catch-up of both streams at once: on docker-compose.yml's Spark master and two workers, and in local mode.

    .venv/bin/python -m benchmarks.cluster [trades] [rounds]

The rounds of the two take turns. What a start takes, measured on an empty topic, is left out of the catch-up. It starts
a stack of its own in a temporary folder, and deletes it at the end; ten minutes.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from stock_pipeline.ingest.trade import encode
from stock_pipeline.settings import load_settings
from stock_pipeline_tests.compose.compose_file import environment
from stock_pipeline_tests.compose.containers import Containers
from stock_pipeline_tests.conftest import Stack, on_free_ports
from stock_pipeline_tests.messages import trade

SYMBOLS = 50
IN_A_MESSAGE = 100


def fill(stack: Stack, trades: int) -> None:
    """Records of the last 50 seconds, in the four partitions."""
    schema, now = load_settings().avro_schema, time.time_ns() // 1_000_000
    for first in range(0, trades, IN_A_MESSAGE * 1000):
        for partition in range(4):
            messages = [
                encode(
                    schema,
                    [
                        trade(f"BINANCE:S{number % SYMBOLS}", p=100 + number % 1000 / 100, t=now - number % 50_000)
                        for number in range(begin, begin + IN_A_MESSAGE)
                    ],
                )
                for begin in range(first + partition * IN_A_MESSAGE, min(first + 100_000, trades), 4 * IN_A_MESSAGE)
            ]
            stack.send(*messages, partition=partition)


def catch_up(stack: Stack, **changes: str) -> float:
    """Seconds until both streams, without a checkpoint, have committed all that the topic holds."""
    shutil.rmtree(stack.home / "checkpoints", ignore_errors=True)
    with stack.connect() as connection:
        connection.execute("TRUNCATE tick_data, ohlcv_data, stream_offset, late_minute, stale_bar")
    began = time.perf_counter()
    streams = [stack.start("stream", name, "--available-now", **changes) for name in ("tick", "ohlcv")]
    for stream in streams:
        output = stream.communicate()[0]
        assert stream.returncode == 0, output
    return time.perf_counter() - began


def main() -> None:
    trades, rounds = (*map(int, sys.argv[1:]), *(500_000, 3)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as folder:
        stack = on_free_ports(Path(folder) / "home")
        containers = Containers(stack, Path(folder) / "containers")
        assert stack.command("up").returncode == 0
        try:
            for name in ("spark-master", "spark-worker"):
                containers.start(name)
            driver = environment(containers.services()["code-server"])
            cluster = {name: value for name, value in driver.items() if name.startswith("SPARK_")}
            modes = {"local[2]": {"SPARK_MASTER": "local[2]"}, "cluster": cluster}
            starts = {
                mode: median(catch_up(stack, **changes) for _ in range(rounds)) for mode, changes in modes.items()
            }
            fill(stack, trades)
            ratios = []
            for number in range(1, rounds + 1):
                seconds = {mode: catch_up(stack, **changes) - starts[mode] for mode, changes in modes.items()}
                [(ticks,)] = stack.query("SELECT count(*) FROM tick_data")
                assert ticks == trades
                ratios.append(seconds["cluster"] / seconds["local[2]"])
                figures = ", ".join(f"{mode} {taken:.1f} s after {starts[mode]:.1f}" for mode, taken in seconds.items())
                print(f"round {number}: {figures}; ratio {ratios[-1]:.2f}", flush=True)
            print(f"{trades:,} trades: cluster / local, median {median(ratios):.2f}")
        finally:
            containers.kill()
            assert stack.command("down", "--wipe").returncode == 0


if __name__ == "__main__":
    main()
