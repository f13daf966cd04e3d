"""Whether bars are what their ticks make them, and repair where they are not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from stock_pipeline.bars.minutes import parse_time, whole_minutes
from stock_pipeline.bars.restatement import say_cause
from stock_pipeline.ingest.trade import EARLIEST_TIME
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import fetch_value, load_sql

Difference = dict[str, Any]
"""A bar that differs: timestamp, symbol, updated_at, stored_* and expected_* of its columns; null: there is none."""

STEP = timedelta(hours=6)
"""What is compared in one query, so that memory does not grow with the range."""

FIRST_TRADE = datetime.fromtimestamp(EARLIEST_TIME / 1000, UTC)


def named_range(begin: str | None, end: str | None) -> tuple[datetime, datetime]:
    """The range that a person names, by default all that there can be.

    Raises:
        BadRange: it is back to front or in the future.
    """
    start = parse_time("--from", begin) if begin else FIRST_TRADE
    return whole_minutes(start, parse_time("--to", end) if end else datetime.now(UTC))


def count_waiting(connection: psycopg.Connection) -> int:
    """Late minutes that wait for both streams to commit their trades."""
    count: int = fetch_value(connection, "queries/count_late_minutes.sql")
    return count


def reconcile(
    connection: psycopg.Connection[Any], settings: Settings, begin: datetime, end: datetime
) -> Iterator[Difference]:
    """The bars from `begin` to before `end` that differ from those made of their ticks, the oldest first.

    Minutes whose trades not both streams have committed, and those whose ticks have been dropped, are left out.
    """
    values = {"symbol": None, "eligibility": settings.bar_eligibility}
    steps = {"begin": begin, "end": end, "step": STEP}
    with connection.cursor(row_factory=dict_row) as cursor:
        for step in cursor.execute(load_sql("queries/steps_with_chunks.sql"), steps).fetchall():
            yield from cursor.execute(load_sql("checks/reconcile_bars.sql"), values | step).fetchall()


def repair(connection: psycopg.Connection, settings: Settings, difference: Difference) -> None:
    """Make a bar what its ticks make it; a bar without ticks is deleted."""
    with connection.transaction():
        say_cause(connection, "correction")
        if difference["expected_ticks"] is None:
            connection.execute(load_sql("queries/delete_bar.sql"), difference)
        else:
            values = {"minute": difference["timestamp"], "symbol": difference["symbol"]}
            values |= {"eligibility": settings.bar_eligibility, "always": True}
            connection.execute(load_sql("queries/restate_minute.sql"), values)
