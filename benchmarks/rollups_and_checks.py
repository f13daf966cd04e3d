"""What a minute's refresh of the rollups, a day's backfill and all asset checks cost, at 1 and at 100 million ticks.

    .venv/bin/python -m benchmarks.rollups_and_checks [ticks ...]

Generates trades of 50 symbols in the 24 hours to now. Needs 20 GB of disk and 20 minutes for 100 million; it starts a
stack of its own in a temporary folder, and deletes it at the end.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from statistics import median

import psycopg
from dagster import DagsterInstance

from benchmarks.stack import own_stack
from stock_pipeline.bars.rollups import ROLLUPS, refresh
from stock_pipeline.definitions import defs
from stock_pipeline.local.run import dagster_environment
from stock_pipeline.settings import load_settings

SYMBOLS = 50
HOURS = 24
REFRESHES = 30

GENERATE = """
INSERT INTO tick_data
SELECT
    'BINANCE:S' || number %% %(symbols)s,
    100 * exp(sin(number / 1e6) / 100) + (number * 7919 %% 1000) / 1e4,
    date_trunc('milliseconds', %(now)s - number * INTERVAL '1 second' / %(per_second)s),
    1 + number * 104729 %% 100,
    number * 4194304,
    NULL,
    %(now)s - number * INTERVAL '1 second' / %(per_second)s + INTERVAL '50 milliseconds'
FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS number
ORDER BY 1, 3, 5
"""

BUILD = """
INSERT INTO ohlcv_data (timestamp, symbol, open, high, low, close, volume, trades, ticks, vwap, is_final)
SELECT bar.*, bar.timestamp < %(now)s - INTERVAL '16 minutes'
FROM bars_from_ticks(
    %(now)s - %(hours)s * INTERVAL '1 hour', %(now)s - (%(hours)s - 1) * INTERVAL '1 hour', NULL, 'all'
) AS bar
"""

A_MINUTE_LATER = """
UPDATE ohlcv_data SET close = close, updated_at = now()
WHERE timestamp = (SELECT max(timestamp) FROM ohlcv_data);
UPDATE ohlcv_data SET is_final = TRUE
WHERE timestamp = (SELECT min(timestamp) FROM ohlcv_data WHERE NOT is_final)
"""


def fill(connection: psycopg.Connection, ticks: int) -> datetime:
    """Ticks and their bars, and streams that have taken them all in; the time where they end."""
    [(now,)] = connection.execute("SELECT date_trunc('minute', now())").fetchall()
    values = {"now": now, "symbols": SYMBOLS, "per_second": ticks / (HOURS * 3600)}
    connection.execute(
        "TRUNCATE tick_data, ohlcv_data, ohlcv_5m, ohlcv_15m, ohlcv_1h, ohlcv_1d, stale_bar, stream_offset"
    )
    connection.execute(
        "INSERT INTO instrument SELECT 'BINANCE:S' || number, 'crypto', '24/7', 525600 "
        "FROM generate_series(0, %(symbols)s - 1) AS number ON CONFLICT DO NOTHING",
        values,
    )
    for first in range(1, ticks + 1, 1_000_000):
        connection.execute(GENERATE, values | {"first": first, "last": min(first + 999_999, ticks)})
    for hour in range(HOURS, 0, -1):
        connection.execute(BUILD, values | {"hours": hour})
    connection.execute(
        "INSERT INTO stream_offset SELECT stream, 'topic', 0, %s, now(), now() "
        "FROM unnest(ARRAY['tick-stream', 'ohlcv-stream']) AS stream",
        [ticks + 1],
    )
    # What autovacuum would do meanwhile.
    connection.execute("VACUUM (ANALYZE)")
    return now


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def refresh_all(connection: psycopg.Connection) -> None:
    for rollup in ROLLUPS:
        refresh(connection, rollup)


def run(job: str, instance: DagsterInstance, partition: str | None = None) -> None:
    found = defs().get_repository_def().get_job(job)
    assert found.execute_in_process(instance=instance, partition_key=partition).success


def measure(connection: psycopg.Connection, ticks: int) -> None:
    print(f"{ticks:,} ticks generated with their bars in {seconds(lambda: fill(connection, ticks)):.0f} s")
    print(f"    first refresh of all rollups {seconds(lambda: refresh_all(connection)):.2f} s")
    taken: dict[str, list[float]] = {rollup.table: [] for rollup in ROLLUPS}
    for _ in range(REFRESHES):
        connection.execute(A_MINUTE_LATER)
        for rollup in ROLLUPS:
            taken[rollup.table].append(seconds(lambda rollup=rollup: refresh(connection, rollup)))
    for table, refreshes in taken.items():
        least, middle = min(refreshes) * 1000, median(refreshes) * 1000
        print(f"    {table} a minute later: least {least:.1f} ms, median {middle:.1f}")
    days = connection.execute(
        "SELECT DISTINCT (timestamp AT TIME ZONE 'UTC')::date::text AS day FROM ohlcv_data ORDER BY day"
    ).fetchall()
    os.environ.update(dagster_environment(load_settings()))
    with DagsterInstance.get() as instance:
        for (day,) in days:
            print(f"    backfill of {day} in Dagster {seconds(lambda day=day: run('rollups', instance, day)):.1f} s")
        for job in ("live_checks", "table_checks"):
            print(f"    {job} {seconds(lambda job=job: run(job, instance)):.1f} s")


@contextmanager
def own_database() -> Iterator[psycopg.Connection]:
    """That of a stack of its own, to its owner."""
    with own_stack(), psycopg.connect(load_settings().conninfo("owner"), autocommit=True) as connection:
        yield connection


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or [1_000_000, 100_000_000]
    with own_database() as connection:
        for ticks in sizes:
            measure(connection, ticks)


if __name__ == "__main__":
    main()
