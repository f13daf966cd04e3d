"""Whether bars are what their ticks make them, and repair where they are not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from stock_pipeline.bars.minutes import parse_time, whole_minutes
from stock_pipeline.bars.restatement import say_cause
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import fetch_value, load_sql

Difference = dict[str, Any]
"""A bar that differs: timestamp, symbol, updated_at, stored_* and expected_* of its columns; null: there is none."""

STEP = timedelta(hours=6)
"""What is compared in one query, so that memory does not grow with the range."""


def range_of_bars(
    connection: psycopg.Connection, begin: str | None, end: str | None
) -> tuple[datetime, datetime] | None:
    """The range that a person names, by default all that there is; None where there is nothing.

    Raises:
        BadRange: it is back to front or in the future.
    """
    row = connection.execute(load_sql("queries/bars_range.sql")).fetchone()
    first, last = row if row else (None, None)
    start = parse_time("--from", begin) if begin else first
    stop = parse_time("--to", end) if end else datetime.now(UTC)
    if start is None or last is None:
        return None
    begin_minute, end_minute = whole_minutes(start, stop)
    return max(begin_minute, first), min(end_minute, last)


def count_waiting(connection: psycopg.Connection) -> int:
    """Late minutes that wait for both streams to commit their trades."""
    count: int = fetch_value(connection, "queries/count_late_minutes.sql")
    return count


def reconcile(
    connection: psycopg.Connection[Any], settings: Settings, begin: datetime, end: datetime, symbol: str | None = None
) -> Iterator[Difference]:
    """The bars from `begin` to before `end` that differ from those made of their ticks, the oldest first.

    Minutes whose trades not both streams have committed, and those whose ticks have been dropped, are left out.

    Args:
        symbol: None: all.
    """
    while begin < end:
        until = min(begin + STEP, end)
        values = {"begin": begin, "end": until, "symbol": symbol, "eligibility": settings.bar_eligibility}
        with connection.cursor(row_factory=dict_row) as cursor:
            yield from cursor.execute(load_sql("checks/reconcile_bars.sql"), values).fetchall()
        begin = until


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
