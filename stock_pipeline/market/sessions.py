"""When markets are open, from exchange_calendars."""

from functools import cache
from typing import Any

import exchange_calendars
import psycopg
from exchange_calendars import ExchangeCalendar

from stock_pipeline.market.instruments import MARKETS
from stock_pipeline.sql_files import load_sql

FIRST_SESSION = "1990-01-01"
"""No trade of Finnhub is older."""


@cache
def calendar(name: str) -> ExchangeCalendar:
    """A calendar from 1990 to a year ahead."""
    return exchange_calendars.get_calendar(name, start=FIRST_SESSION)


def fill_market_sessions(connection: psycopg.Connection[Any]) -> int:
    """Bring market_session to what exchange_calendars knows; gives the number of sessions."""
    count = 0
    for name, _ in MARKETS.values():
        sessions = calendar(name).schedule
        values = {
            "calendar": name,
            "session": list(sessions.index.date),
            "opens": list(sessions["open"].dt.to_pydatetime()),
            "closes": list(sessions["close"].dt.to_pydatetime()),
        }
        connection.execute(load_sql("queries/upsert_market_sessions.sql"), values)
        count += len(sessions)
    return count
