"""Ticks and bars of a range built again from the topic, and put in the place of what is there."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from spark.eligibility import load_eligibility
from spark.ohlcv_streaming import build_bars
from spark.sinks import stage_bars, stage_ticks
from spark.topic import read_records
from stock_pipeline.bars.minutes import whole_minutes
from stock_pipeline.bars.restatement import say_cause
from stock_pipeline.database import ANY_NUMBER_OF_ROWS
from stock_pipeline.errors import AlreadyRunning, BadRange, UnknownSymbol
from stock_pipeline.ingest.topics import offset_ranges, offset_received_since, received_at, topic_id
from stock_pipeline.ingest.trade import MAX_AHEAD
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import fetch_value, load_sql

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild made.

    Attributes:
        ticks, bars: how many the topic holds for the range.
        changed: bars that were other before, or not there, or are no more.
    """

    begin: datetime
    end: datetime
    ticks: int
    bars: int
    changed: int


def rebuild(
    spark: SparkSession, settings: Settings, begin: datetime, end: datetime, symbol: str | None = None
) -> Rebuilt:
    """Build tick_data and ohlcv_data again from `begin` to before `end`, in whole minutes.

    Reads the records from a minute before `begin`, since a trade may come so much before its time, to the end that the
    topic has now; what comes after that stays as the streams write it. Readers see the old until they see the new.

    Args:
        symbol: None: all.

    Raises:
        BadRange: it is back to front or in the future, or the topic no longer holds it all.
        UnknownSymbol: there has never been a trade of it.
        AlreadyRunning: another rebuild runs.
        KafkaException, psycopg.OperationalError: a server cannot be reached.
    """
    begin, end = whole_minutes(begin, end)
    portable = settings.with_passwords()
    conninfo = settings.conninfo("writer")
    with psycopg.connect(conninfo, autocommit=True, options=ANY_NUMBER_OF_ROWS) as connection:
        if not fetch_value(connection, "queries/try_rebuild_lock.sql"):
            raise AlreadyRunning("another rebuild is running: wait for its end, one at a time")
        _check_symbol(connection, symbol)
        # Before the ends, so that a bar with a trade beyond them was written later than this.
        began = fetch_value(connection, "queries/now.sql")
        ranges = offset_ranges(settings)
        _check_is_held(connection, settings, ranges, begin, end, symbol)
        ends = {partition: stop for partition, (_, stop) in ranges.items()}
        since = begin.timestamp() - MAX_AHEAD / 1000
        starts = {
            partition: min(offset_received_since(settings, partition, since), ends[partition]) for partition in ends
        }

        def choose(trades: pa.Table) -> pa.Table:
            time = pc.field("event_time")
            wanted = (time >= begin) & (time < end)
            return trades.filter(wanted if symbol is None else wanted & (pc.field("symbol") == symbol))

        records = read_records(spark, settings, starts, ends)
        connection.execute("TRUNCATE rebuild_tick, rebuild_bar")
        ticks = stage_ticks(records, choose, portable)
        bars = stage_bars(build_bars(records, load_eligibility(settings), choose), portable)
        values = {"begin": begin, "end": end, "symbol": symbol, "began": began}
        places = {"partitions": list(ends), "ends": list(ends.values())}
        with connection.transaction():
            say_cause(connection, "rebuild")
            connection.execute(load_sql("queries/delete_rebuilt_ticks.sql"), values | places)
            connection.execute(load_sql("queries/insert_rebuilt_ticks.sql"))
            connection.execute(load_sql("queries/requeue_rebuilt_minutes.sql"), values)
            changed = connection.execute(load_sql("queries/delete_rebuilt_bars.sql"), values).rowcount
            changed += connection.execute(load_sql("queries/upsert_rebuilt_bars.sql"), values).rowcount
        connection.execute("TRUNCATE rebuild_tick, rebuild_bar")
    log.info("rebuilt %s to %s: %d ticks, %d bars, %d of them changed", begin, end, ticks, bars, changed)
    return Rebuilt(begin, end, ticks, bars, changed)


def _check_symbol(connection: psycopg.Connection, symbol: str | None) -> None:
    if symbol is None:
        return
    known = [row[0] for row in connection.execute(load_sql("queries/select_symbols.sql")).fetchall()]
    if symbol not in known:
        some = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
        raise UnknownSymbol(f"--symbol: there has never been a trade of {symbol!r}; there are: {some or 'none'}")


def _check_is_held(
    connection: psycopg.Connection,
    settings: Settings,
    ranges: Mapping[int, tuple[int, int]],
    begin: datetime,
    end: datetime,
    symbol: str | None,
) -> None:
    """Raise BadRange where the topic no longer holds all trades of the range."""
    since = begin - timedelta(milliseconds=MAX_AHEAD)
    kept_from = fetch_value(connection, "queries/ticks_kept_from.sql")
    if kept_from is not None and begin < kept_from:
        raise BadRange(f"--from {begin}: ticks before {kept_from} have been dropped, and their bars stay as they are")
    older = fetch_value(
        connection, "queries/older_topic_until.sql", {"stream": "tick-stream", "topic_id": topic_id(settings)}
    )
    if older is not None and since < older:
        raise BadRange(
            f"--from {begin}: until {older} trades came from another topic {settings.kafka_topic}, now deleted"
        )
    lost_until = fetch_value(connection, "queries/lost_in_kafka_until.sql")
    if lost_until is not None and since < lost_until:
        raise BadRange(
            f"--from {begin}: Kafka has lost records of before {lost_until}, see feed_gap: their ticks would go, too"
        )
    # What never lost a record holds all.
    expired = {partition: places for partition, places in ranges.items() if places[0] > 0}
    held_since = [
        datetime.fromtimestamp(received_at(settings, partition, first), UTC)
        for partition, (first, stop) in expired.items()
        if first < stop
    ]
    if not expired:
        return
    firsts = {"partitions": list(expired), "firsts": [first for first, _ in expired.values()]}
    values = {"begin": begin, "end": end, "symbol": symbol, **firsts}
    lost = fetch_value(connection, "queries/ticks_below.sql", values)
    if lost or any(since < time for time in held_since) or (len(expired) == len(ranges) and not held_since):
        content = f"all records received since {max(held_since)}" if held_since else "no older record"
        raise BadRange(f"--from {begin}: the topic {settings.kafka_topic} no longer holds this range; it has {content}")
