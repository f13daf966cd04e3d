"""Writing batches into TimescaleDB, from Spark's workers, so that a batch may come again without harm.

Spark calls a sink at least once for each batch. Ticks have a key that does not depend on the batch (seq);
a bar is replaced only by one built from at least as many ticks.

Each function here runs in a Python worker and keeps one connection there from batch to batch. While the
database is away it waits, and says so in the log of the stream: the batch is finished when it is back.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any, TypeVar

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from pgpq import ArrowToPostgresBinaryEncoder
from pyspark.sql import DataFrame

from spark.topic import RECORD
from spark.trades import REJECTED, Choice, place_of, read_trades
from stock_pipeline.bars.restatement import say_cause
from stock_pipeline.database import ANY_NUMBER_OF_ROWS, until_available
from stock_pipeline.ingest.dead_letters import cut_to_fit
from stock_pipeline.ingest.message import Trade, encode
from stock_pipeline.ingest.topics import client_settings
from stock_pipeline.market.instruments import instrument
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import fetch_value, load_sql

log = logging.getLogger(__name__)

T = TypeVar("T")

CHUNK_ROWS, CHUNK_BYTES = 200_000, 100_000_000
"""Most rows and bytes, or nearly, written in one transaction, so that memory does not grow with the batch."""

LATENCY_SAMPLE = 100
"""About how many latencies of each chunk are reported: Spark keeps those of a hundred batches."""

LATE = pa.scalar(180_000_000, pa.duration("us"))
"""From the start of its minute on: a trade that comes more than two minutes after the minute's end is late."""

OLD = timedelta(hours=12)
"""The ohlcv stream leaves out what lies a day behind its newest trade, whenever it was received: well before that,
a minute is old and its bar is compared with its ticks."""

WRITTEN = "rows long, rejected long, latencies array<double>"
"""Schema of a sink's report, a row for each chunk: rows written, rows rejected, seconds from receipt to commit."""


def write_ticks(records: DataFrame, settings: Settings) -> DataFrame:
    """Write the trades in Kafka records to tick_data and everything else to the dead-letter topic.

    Returns:
        One row of WRITTEN for each chunk; it is written when the row is asked for.
    """

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rejected = 0

        def trades() -> Iterator[pa.Table]:
            nonlocal rejected
            for batch in batches:
                read = read_trades(batch)
                rejected += _dead_letter(read.rejected, settings)
                yield read.trades

        for chunk in _chunks(trades()):
            kept, dropped = _part_dropped(chunk, settings)
            rejected += _dead_letter(dropped, settings)
            kept = kept.sort_by([("symbol", "ascending"), ("event_time", "ascending"), ("seq", "ascending")])
            _in_transaction(settings, partial(_write_trades, kept))
            _KNOWN_SYMBOLS.update(pc.unique(kept["symbol"]).to_pylist())
            yield _report(kept["received_at"], rejected)
            rejected = 0

    return records.select(*RECORD).mapInArrow(write, WRITTEN)


def write_bars(bars: DataFrame, settings: Settings) -> DataFrame:
    """Write bars to ohlcv_data; one row of WRITTEN for each chunk, which is written when the row is asked for."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in _chunks(map(_as_table, batches)):
            _in_transaction(settings, partial(_upsert_bars, chunk))
            yield _report(chunk["newest_receipt"], 0)

    return bars.mapInArrow(write, WRITTEN)


def stage_ticks(records: DataFrame, choose: Choice, settings: Settings) -> int:
    """Put the chosen trades in Kafka records into rebuild_tick; how many."""

    def read(batch: pa.RecordBatch) -> pa.Table:
        return choose(read_trades(batch).trades)

    return _stage(records.select(*RECORD), read, "queries/copy_rebuild_ticks.sql", settings)


def stage_bars(bars: DataFrame, settings: Settings) -> int:
    """Put bars into rebuild_bar; how many."""
    return _stage(bars.drop("newest_receipt"), _as_table, "queries/copy_rebuild_bars.sql", settings)


def _stage(rows: DataFrame, read: Callable[[pa.RecordBatch], pa.Table], statement: str, settings: Settings) -> int:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in _chunks(map(read, batches)):
            _in_transaction(settings, partial(_copy, statement, _encode(chunk)))
            yield pa.RecordBatch.from_pydict({"rows": pa.array([chunk.num_rows], pa.int64())})

    return sum(row.rows for row in rows.mapInArrow(write, "rows long").collect())


def _as_table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _chunks(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """What a partition holds, gathered into tables of about CHUNK_ROWS rows or CHUNK_BYTES."""
    gathered: list[pa.Table] = []
    for table in tables:
        gathered.append(table)
        rows, size = sum(part.num_rows for part in gathered), sum(part.nbytes for part in gathered)
        if rows >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield pa.concat_tables(gathered)
            gathered = []
    if gathered:
        yield pa.concat_tables(gathered)


def _report(receipts: pa.ChunkedArray, rejected: int) -> pa.RecordBatch:
    """A row of WRITTEN."""
    rows = len(receipts)
    sample = receipts.take(pa.array(range(0, rows, max(1, rows // LATENCY_SAMPLE)), pa.int64()))
    now = time.time()
    latencies = [now - receipt.timestamp() for receipt in sample.to_pylist()]
    return pa.RecordBatch.from_pydict(
        {"rows": pa.array([rows], pa.int64()), "rejected": pa.array([rejected], pa.int64()), "latencies": [latencies]}
    )


@lru_cache(maxsize=1)
def _connection(conninfo: str) -> psycopg.Connection:
    # What a stream writes is no restatement, unless it says so.
    return psycopg.connect(conninfo, options=f"-c stock_pipeline.cause=build {ANY_NUMBER_OF_ROWS}")


def _in_transaction(settings: Settings, work: Callable[[psycopg.Connection], T]) -> T:
    """Call `work` and commit, again and again while the database is away; gives what it returned."""
    for attempt in until_available(settings):
        with attempt:
            try:
                connection = _connection(settings.conninfo("writer"))
                result = work(connection)
                connection.commit()
                return result
            except psycopg.Error:
                _forget_connection(settings)
                raise
    raise AssertionError("until_available ends only by success or error")


def _forget_connection(settings: Settings) -> None:
    """Close the worker's connection, whatever its state, so that the next try begins afresh."""
    if _connection.cache_info().currsize:
        try:
            _connection(settings.conninfo("writer")).close()
        finally:
            _connection.cache_clear()


_KNOWN_SYMBOLS: set[str] = set()
"""Symbols that this worker has seen in the table instrument."""


def _part_dropped(trades: pa.Table, settings: Settings) -> tuple[pa.Table, pa.Table]:
    """The trades, and, as REJECTED, those of a time whose ticks have been dropped: their bars cannot be built now."""
    kept_from = _in_transaction(settings, lambda connection: fetch_value(connection, "queries/ticks_kept_from.sql"))
    is_kept = pc.field("event_time") >= kept_from if kept_from else pc.scalar(True)
    reason = f"t is before {kept_from:%Y-%m-%d}, from where on ticks are kept" if kept_from else ""
    rejected = [
        {
            "reason": reason,
            "value": encode([_as_trade(row)]),
            "topic": settings.kafka_topic,
            **place_of(row["seq"]),
            "received_at": row["received_at"],
        }
        for row in trades.filter(~is_kept).to_pylist()
    ]
    return trades.filter(is_kept), pa.Table.from_pylist(rejected, REJECTED)


def _as_trade(row: Mapping[str, Any]) -> Trade:
    return {
        "s": row["symbol"],
        "p": row["price"],
        "t": round(row["event_time"].timestamp() * 1000),
        "v": row["volume"],
        "c": row["conditions"],
    }


def _write_trades(trades: pa.Table, connection: psycopg.Connection) -> None:
    """Insert trades, their symbols, and which minutes they come late for, or so long after that a bar may lack them."""
    _copy_ticks(trades, connection)
    symbols = set(pc.unique(trades["symbol"]).to_pylist()) - _KNOWN_SYMBOLS
    if symbols:
        rows = [asdict(instrument(symbol)) for symbol in sorted(symbols)]
        values = {name: [row[name] for row in rows] for name in rows[0]}
        connection.execute(load_sql("queries/insert_instruments.sql"), values)
    minutes = pc.floor_temporal(trades["event_time"], unit="minute")
    is_late = pc.greater_equal(trades["received_at"], pc.add(minutes, LATE))
    is_old = pc.less(trades["event_time"], pa.scalar(datetime.now(UTC) - OLD))
    late = pa.table({"timestamp": minutes, "symbol": trades["symbol"]}).filter(pc.or_(is_late, is_old))
    if late.num_rows:
        late = late.group_by(["timestamp", "symbol"]).aggregate([])
        connection.execute(load_sql("queries/insert_late_minutes.sql"), late.to_pydict())


def _copy_ticks(trades: pa.Table, connection: psycopg.Connection) -> None:
    """Insert trades, those that are there already left as they are.

    The plain COPY is twice as fast as the one through a temporary table, which only a repeated batch needs.
    """
    if trades.num_rows == 0:
        return
    content = _encode(trades)
    try:
        _copy("queries/copy_ticks.sql", content, connection)
    except psycopg.errors.UniqueViolation:
        connection.rollback()
        connection.execute(load_sql("queries/create_tick_batch.sql"))
        _copy("queries/copy_tick_batch.sql", content, connection)
        connection.execute(load_sql("queries/insert_tick_batch.sql"))


def _encode(rows: pa.Table) -> bytes:
    """Rows in the binary format of COPY."""
    encoder = ArrowToPostgresBinaryEncoder(rows.schema)
    parts = [encoder.write_header(), *(encoder.write_batch(part) for part in rows.to_batches()), encoder.finish()]
    return b"".join(parts)


def _copy(statement: str, content: bytes, connection: psycopg.Connection) -> None:
    with connection.cursor() as cursor, cursor.copy(load_sql(statement)) as copy:
        copy.write(content)


def _upsert_bars(bars: pa.Table, connection: psycopg.Connection) -> None:
    """Write bars; those that a late trade changes are restated."""
    is_late = pc.greater_equal(bars["newest_receipt"], pc.add(bars["timestamp"], LATE))
    in_time, late = bars.filter(pc.invert(is_late)), bars.filter(is_late)
    if in_time.num_rows:
        connection.execute(load_sql("queries/upsert_bars.sql"), in_time.to_pydict())
    if late.num_rows:
        say_cause(connection, "late trade")
        connection.execute(load_sql("queries/upsert_bars.sql"), late.to_pydict())


@lru_cache(maxsize=1)
def _dead_letter_producer(settings: Settings) -> Producer:
    return Producer({**client_settings(settings), "enable.idempotence": True, "message.timeout.ms": 0})


def _dead_letter(rejected: pa.Table, settings: Settings) -> int:
    """Write what is none to the dead-letter topic, with its reason and origin, and wait until it is there; how many."""
    if rejected.num_rows == 0:
        return 0
    producer = _dead_letter_producer(settings)
    failures: list[KafkaError] = []

    def note(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    for row in rejected.to_pylist():
        value, cut = cut_to_fit(row.pop("value"))
        received_at = row.pop("received_at")
        headers: dict[str, str | bytes | None] = {
            name: str(text).encode() for name, text in {**row, **cut}.items() if text is not None
        }
        letter = partial(
            producer.produce,
            settings.dead_letter_topic,
            value,
            headers=headers,
            timestamp=int(received_at.timestamp() * 1000),
            on_delivery=note,
        )
        try:
            letter()
        except BufferError:
            producer.flush()
            letter()
        producer.poll(0)
    producer.flush()
    if failures:
        raise KafkaException(failures[0])
    return int(rejected.num_rows)
