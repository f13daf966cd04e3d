"""What happens to bars after their minute: late trades restate them, outages of the feed mark them, and after 15
minutes they are final.
"""

import logging
import time
from collections import Counter, defaultdict
from datetime import datetime
from typing import Literal

import psycopg

from stock_pipeline.database import ANY_NUMBER_OF_ROWS
from stock_pipeline.errors import first_line
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import fetch_value, load_sql

log = logging.getLogger(__name__)

Cause = Literal["late trade", "rebuild", "correction"]

AT_ONCE = 100
"""Late minutes restated in one transaction."""

BUDGET = 2.0
"""Seconds of one call, so that a flood of late trades does not hold the stream's account up."""


def say_cause(connection: psycopg.Connection, cause: Cause) -> None:
    """Tell ohlcv_restatement why bars change in this transaction."""
    connection.execute("SELECT set_config('stock_pipeline.cause', %s, TRUE)", [cause])


def settle_bars(settings: Settings) -> Counter[str]:
    """Restate the bars that lack late trades, mark those that overlap an outage of the feed, and those that are final.

    Trades that came again after an outage are noted as suspected duplicates.

    Does what it can within BUDGET; the next call goes on. A database that is away is left for the next call, too.

    Returns:
        How many late minutes were compared with their ticks, how many bars were restated, marked, became final, and how
        many trades are suspected duplicates.
    """
    done: Counter[str] = Counter()
    deadline = time.monotonic() + BUDGET
    try:
        conninfo = settings.conninfo("writer")
        # Each statement is planned for its own values: what is stored as columns is found by them only.
        with psycopg.connect(
            conninfo, autocommit=True, options=ANY_NUMBER_OF_ROWS, prepare_threshold=None
        ) as connection:
            while (compared := _restate_late(connection, settings, done)) == AT_ONCE and time.monotonic() < deadline:
                log.info("%d late minutes compared with their ticks, more wait", compared)
            connection.execute(load_sql("queries/mark_gaps_of_rollups.sql"))
            done["marked"] = fetch_value(connection, "queries/mark_gaps.sql")
            done["suspected"] = connection.execute(load_sql("queries/find_suspected_duplicates.sql")).rowcount
            _finalise(connection, settings, done)
    except psycopg.OperationalError as error:
        log.warning("bars are settled later, the database is away: %s", first_line(error))
    return done


def _restate_late(connection: psycopg.Connection, settings: Settings, done: Counter[str]) -> int:
    """Compare some late minutes with their ticks and restate those that differ; gives how many were compared."""
    with connection.transaction():
        say_cause(connection, "late trade")
        minutes = connection.execute(load_sql("queries/take_late_minutes.sql"), {"limit": AT_ONCE}).fetchall()
        for minute, symbol in minutes:
            done["restated"] += _restate(connection, settings, minute, symbol)
    done["compared"] += len(minutes)
    return len(minutes)


def _finalise(connection: psycopg.Connection, settings: Settings, done: Counter[str]) -> None:
    """Make bars final, minute by minute, after those that lack ticks have been restated.

    They may lack some of before an outage of the ohlcv stream that was longer than its state reaches.
    """
    deadline = time.monotonic() + BUDGET
    while minutes := connection.execute(load_sql("queries/minutes_to_finalise.sql")).fetchall():
        ends = {"first": minutes[0][0], "last": minutes[-1][0]}
        lacking = defaultdict[datetime, list[str]](list)
        for minute, symbol in connection.execute(load_sql("queries/symbols_with_other_ticks.sql"), ends):
            lacking[minute].append(symbol)
        for minute, symbols in minutes:
            with connection.transaction():
                say_cause(connection, "late trade")
                done["restated"] += sum(_restate(connection, settings, minute, symbol) for symbol in lacking[minute])
                values = {"minute": minute, "symbols": symbols}
                done["final"] += connection.execute(load_sql("queries/finalise_minute.sql"), values).rowcount
            if time.monotonic() > deadline:
                return


def _restate(connection: psycopg.Connection, settings: Settings, minute: datetime, symbol: str) -> int:
    """Write the bar that the ticks make where it is another, of no fewer ticks; gives how many were written."""
    values = {"minute": minute, "symbol": symbol, "eligibility": settings.bar_eligibility, "always": False}
    return connection.execute(load_sql("queries/restate_minute.sql"), values).rowcount
