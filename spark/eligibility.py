"""What a trade may do to its bar, by its condition codes: the tables trade_condition and market_session for Spark."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import psycopg
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import load_sql


@dataclass(frozen=True)
class Eligibility:
    """The rules, as they were when the query began.

    Attributes:
        no_high_low, no_last, no_volume: codes of trades that may not update these.
        extended_only: codes of trades that set prices only outside the regular session.
        first_day: days since 1970 of the first of `hours`.
        hours: for each day the minutes of the day, UTC, in which the regular session of stocks begins and ends, as two
            numbers of 16 bits; 0 and 0 on a day without one. Spark finds a day in bytes at once, however many there
            are; an array of as many numbers would be compiled into the query.
    """

    no_high_low: Sequence[str] = ()
    no_last: Sequence[str] = ()
    no_volume: Sequence[str] = ()
    extended_only: Sequence[str] = ()
    first_day: int = 0
    hours: bytes = field(default=b"", repr=False)

    def judge(self, trades: DataFrame) -> DataFrame:
        """Trades with the columns updates_high_low, updates_last, updates_volume."""
        return trades.withColumn("sets_no_price", self._sets_no_price()).withColumns(
            {
                "updates_high_low": ~(F.col("sets_no_price") | _has(self.no_high_low)),
                "updates_last": ~(F.col("sets_no_price") | _has(self.no_last)),
                "updates_volume": ~_has(self.no_volume),
            }
        )

    def _sets_no_price(self) -> Column:
        """Whether a trade of extended hours lies in a regular session; what is no stock is always in session."""
        day = F.unix_date(F.col("event_time").cast("date")) - self.first_day
        minute = F.unix_seconds("event_time") % 86_400 / 60
        opens, closes = (self._number(day * HOURS.size + place) for place in (0, HOURS.size // 2))
        is_stock = ~F.contains("symbol", F.lit(":"))
        in_session = F.coalesce((minute >= opens) & (minute < closes), F.lit(False))
        return F.when(_has(self.extended_only), ~is_stock | in_session).otherwise(False)

    def _number(self, place: Column) -> Column:
        """The number that begins at a place of `hours`; null outside."""
        found = F.substring(F.lit(bytearray(self.hours)), place + 1, F.lit(HOURS.size // 2))
        return F.conv(F.hex(found), 16, 10).cast("int")


HOURS = struct.Struct(">HH")

EVERY_TRADE = Eligibility()
"""Every trade updates everything."""


def load_eligibility(settings: Settings) -> Eligibility:
    """The rules of the setting bar_eligibility, from the database.

    Raises:
        psycopg.OperationalError: the database cannot be reached.
    """
    if settings.bar_eligibility == "all":
        return EVERY_TRADE
    with psycopg.connect(settings.conninfo("writer")) as connection:
        conditions = connection.execute(load_sql("queries/select_trade_conditions.sql")).fetchall()
        sessions = connection.execute(load_sql("queries/select_stock_sessions.sql")).fetchall()
    by_day = {day: (opens, closes) for day, opens, closes in sessions}
    return Eligibility(
        no_high_low=[code for code, high_low, _, _, _ in conditions if not high_low],
        no_last=[code for code, _, last, _, _ in conditions if not last],
        no_volume=[code for code, _, _, volume, _ in conditions if not volume],
        extended_only=[code for code, *_, session in conditions if session == "extended"],
        first_day=min(by_day),
        hours=b"".join(HOURS.pack(*by_day.get(day, (0, 0))) for day in range(min(by_day), max(by_day) + 1)),
    )


def _has(codes: Sequence[str]) -> Column:
    """Whether one of the trade's condition codes is among these."""
    if not codes:
        return F.lit(False)
    return F.coalesce(F.arrays_overlap("conditions", F.array(*map(F.lit, codes))), F.lit(False))
