"""Catch-up of both streams at once: on docker-compose.yml's Spark master and two workers, and in local mode.

    .venv/bin/python -m benchmarks.cluster [trades] [rounds]

The two take turns. Streams that run and are warm get a backlog in one go, three times; what counts is how long until
both have committed it. A stack of its own is started in a temporary folder, and deleted at the end; ten minutes.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median

from benchmarks.stack import own_stack
from stock_pipeline.ingest.message import encode
from stock_pipeline_tests.compose.containers import Containers
from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.messages import trade

SYMBOLS = 50
IN_A_MESSAGE = 100
PARTITIONS = 4
BACKLOGS = 3


def messages(trades: int) -> list[list[bytes]]:
    """For each partition its messages, of the last 50 seconds."""
    now = time.time_ns() // 1_000_000
    made = [
        encode(
            [
                trade(f"BINANCE:S{number % SYMBOLS}", p=100 + number % 1000 / 100, t=now - number % 50_000)
                for number in range(begin, begin + IN_A_MESSAGE)
            ],
        )
        for begin in range(0, trades, IN_A_MESSAGE)
    ]
    return [made[partition::PARTITIONS] for partition in range(PARTITIONS)]


COMMITTED = """
SELECT count(*)
FROM stream_offset AS reached
INNER JOIN unnest(%s::integer[], %s::bigint[]) AS wanted (partition, ends) ON wanted.partition = reached.partition
WHERE reached.next_offset >= wanted.ends
"""


def take_in(stack: Stack, backlog: Sequence[Sequence[bytes]]) -> float:
    """Seconds from the first message until both streams have committed the last."""
    began = time.perf_counter()
    ends = [stack.send(*values, partition=partition)[-1] + 1 for partition, values in enumerate(backlog)]
    eventually(lambda: stack.query(COMMITTED, [*range(PARTITIONS)], ends) == [(2 * PARTITIONS,)], 300)
    return time.perf_counter() - began


@contextmanager
def streams(stack: Stack, changes: Mapping[str, str]) -> Iterator[None]:
    """Both streams, with empty tables."""
    with stack.connect() as connection:
        connection.execute("TRUNCATE tick_data, ohlcv_data, late_minute, stale_bar")
    for name in ("tick", "ohlcv"):
        stack.start("stream", name, **changes)
    try:
        yield
    finally:
        stack.stop_started()


def main() -> None:
    trades, rounds = (*map(int, sys.argv[1:]), *(1_000_000, 3)[len(sys.argv) - 1 :])
    with own_stack() as stack:
        containers = Containers(stack, stack.home.parent / "containers")
        try:
            modes = {"local[2]": {"SPARK_MASTER": "local[2]"}, "cluster": containers.start_cluster()}
            taken: dict[str, list[float]] = {mode: [] for mode in modes}
            for number in range(1, rounds + 1):
                for mode, changes in modes.items():
                    with streams(stack, changes):
                        take_in(stack, messages(trades))
                        for _ in range(BACKLOGS):
                            taken[mode].append(take_in(stack, messages(trades)))
                        [(ticks,)] = stack.query("SELECT count(*) FROM tick_data")
                        assert ticks == (1 + BACKLOGS) * trades
                    last = ", ".join(f"{trades / seconds:,.0f}" for seconds in taken[mode][-BACKLOGS:])
                    print(f"round {number}, {mode}: {last} trades/s", flush=True)
            ratio = median(taken["cluster"]) / median(taken["local[2]"])
            print(f"{trades:,} trades: time on the cluster / in local mode, of medians: {ratio:.2f}")
        finally:
            containers.kill()


if __name__ == "__main__":
    main()
