"""Bars of 5 and 15 minutes, an hour and a day, each made of the next finer ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row, scalar_row

from stock_pipeline.sql_files import load_sql


@dataclass(frozen=True)
class Rollup:
    """A table of coarser bars.

    Attributes:
        source: the table of the bars that it is made of.
        width: how long a bar is; a day's bar is as long as the day's session.
    """

    table: str
    source: str
    width: timedelta


ROLLUPS = (
    Rollup("ohlcv_5m", "ohlcv_data", timedelta(minutes=5)),
    Rollup("ohlcv_15m", "ohlcv_5m", timedelta(minutes=15)),
    Rollup("ohlcv_1h", "ohlcv_15m", timedelta(hours=1)),
    Rollup("ohlcv_1d", "ohlcv_15m", timedelta(days=1)),
)
"""Each after those that it is made of."""

STEP = timedelta(days=7)
"""What is made anew in one statement, so that memory does not grow with the range; a bar lies within a UTC day."""


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did on a UTC day: bars looked at, and those of them that were written or deleted."""

    day: date
    looked_at: int
    changed: int


def refresh(
    connection: psycopg.Connection[Any], rollup: Rollup, whole: tuple[datetime, datetime] | None = None
) -> list[Refreshed]:
    """Bring a rollup up to date with its source, in one transaction: a row for each day with something to look at.

    Bars are made anew where their finer bars are not final or have changed since.

    Args:
        whole: instead, make every bar from the first moment to before the second anew, changed or not.
    """
    statement = _statement("rollups/refresh.sql", rollup)
    values = {"rollup": rollup.table, "width": rollup.width}
    with connection.transaction(), connection.cursor(row_factory=class_row(Refreshed)) as cursor:
        connection.execute(load_sql("rollups/lock.sql"), values)
        return [
            done
            for begin, end in (_steps(*whole) if whole else [(None, None)])
            for done in cursor.execute(statement, values | {"begin": begin, "end": end}).fetchall()
        ]


def has_changed(connection: psycopg.Connection[Any], rollup: Rollup) -> bool:
    """Whether a refresh would find anything to look at."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        found = cursor.execute(_statement("rollups/has_changed.sql", rollup), {"rollup": rollup.table}).fetchone()
    return bool(found)


def _statement(name: str, rollup: Rollup) -> sql.Composed:
    return load_sql(name).format(rollup=sql.Identifier(rollup.table), source=sql.Identifier(rollup.source))


def _steps(begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    while begin < end:
        until = min(begin + STEP, end)
        yield begin, until
        begin = until
