"""Bars of 5 and 15 minutes, an hour and a day, each made of the next finer ones."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from stock_pipeline.database import load_sql


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

    def fill(self, statement: str) -> sql.Composed:
        """The text of `sql/rollups/<statement>` for this table."""
        tables = {"rollup": sql.Identifier(self.table), "source": sql.Identifier(self.source)}
        return load_sql(f"rollups/{statement}").format(**tables)


ROLLUPS = (
    Rollup("ohlcv_5m", "ohlcv_data", timedelta(minutes=5)),
    Rollup("ohlcv_15m", "ohlcv_5m", timedelta(minutes=15)),
    Rollup("ohlcv_1h", "ohlcv_15m", timedelta(hours=1)),
    Rollup("ohlcv_1d", "ohlcv_15m", timedelta(days=1)),
)
"""Each after those that it is made of."""


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

    Bars are made anew where their finer bars are not final or have changed since. What else is stale is left to the
    refresh of the rollups that are made of this one.

    Args:
        whole: make every bar from the first moment to before the second anew, changed or not.
    """
    name = {"rollup": rollup.table}
    with connection.transaction(), connection.cursor(row_factory=class_row(Refreshed)) as cursor:
        connection.execute(load_sql("rollups/lock.sql"), name)
        if whole is not None:
            begin, end = whole
            connection.execute(rollup.fill("mark_stale.sql"), name | {"begin": begin, "end": end})
        return cursor.execute(rollup.fill("refresh.sql"), name | {"width": rollup.width}).fetchall()
