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
from pyspark.sql import DataFrame, Row

from stock_pipeline.bars.restatement import say_cause
from stock_pipeline.database import ANY_NUMBER_OF_ROWS, until_available
from stock_pipeline.ingest.topics import client_settings
from stock_pipeline.ingest.trade import Trade, encode
from stock_pipeline.market.instruments import instrument
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import fetch_value, load_sql

log = logging.getLogger(__name__)

T = TypeVar("T")

CHUNK_ROWS, CHUNK_BYTES = 200_000, 100_000_000
"""Most rows and bytes, or nearly, written in one transaction, so that memory does not grow with the batch."""

LATENCY_SAMPLE = 1_000
"""Most latencies reported for each partition of a batch."""

TICK_COLUMNS = ("symbol", "price", "event_time", "volume", "seq", "conditions", "received_at")

LATE = pa.scalar(180_000_000, pa.duration("us"))
"""From the start of its minute on: a trade that comes more than two minutes after the minute's end is late."""

OLD = timedelta(hours=12)
"""The ohlcv stream leaves out what lies a day behind its newest trade, whenever it was received: well before that,
a minute is old and its bar is compared with its ticks."""

WRITTEN = "rows long, rejected long, latencies array<double>"
"""Schema of a sink's report, a row for each chunk: rows written, rows rejected, seconds from receipt to commit."""


def write_ticks(rows: DataFrame, settings: Settings) -> list[Row]:
    """Write trades to tick_data and everything else to the dead-letter topic; one row of WRITTEN for each chunk."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in _chunks(batches):
            chunk = _reject_dropped(chunk, settings)
            is_trade = pc.is_null(chunk["reason"])
            rejected = chunk.filter(pc.invert(is_trade))
            _dead_letter(rejected, settings)
            trades = chunk.filter(is_trade).select(TICK_COLUMNS)
            trades = trades.sort_by([("symbol", "ascending"), ("event_time", "ascending"), ("seq", "ascending")])
            _in_transaction(settings, partial(_write_trades, trades))
            _KNOWN_SYMBOLS.update(pc.unique(trades["symbol"]).to_pylist())
            yield _report(trades["received_at"], rejected.num_rows)

    return rows.mapInArrow(write, WRITTEN).collect()


def write_bars(bars: DataFrame, settings: Settings) -> list[Row]:
    """Write bars to ohlcv_data; one row of WRITTEN for each chunk."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in _chunks(batches):
            _in_transaction(settings, partial(_upsert_bars, chunk))
            yield _report(chunk["newest_receipt"], 0)

    return bars.mapInArrow(write, WRITTEN).collect()


def stage_ticks(trades: DataFrame, settings: Settings) -> int:
    """Put trades into rebuild_tick; how many."""
    return _stage(trades.select(*TICK_COLUMNS), "queries/copy_rebuild_ticks.sql", settings)


def stage_bars(bars: DataFrame, settings: Settings) -> int:
    """Put bars into rebuild_bar; how many."""
    return _stage(bars.drop("newest_receipt"), "queries/copy_rebuild_bars.sql", settings)


def _stage(rows: DataFrame, statement: str, settings: Settings) -> int:
    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in _chunks(batches):
            _in_transaction(settings, partial(_copy, statement, _encode(chunk)))
            yield pa.RecordBatch.from_pydict({"rows": pa.array([chunk.num_rows], pa.int64())})

    return sum(row.rows for row in rows.mapInArrow(write, "rows long").collect())


def _chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The batches of a partition, gathered into tables of about CHUNK_ROWS rows or CHUNK_BYTES."""
    gathered: list[pa.RecordBatch] = []
    for batch in batches:
        gathered.append(batch)
        rows, size = sum(part.num_rows for part in gathered), sum(part.nbytes for part in gathered)
        if rows >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield pa.Table.from_batches(gathered)
            gathered = []
    if gathered:
        yield pa.Table.from_batches(gathered)


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


def _reject_dropped(chunk: pa.Table, settings: Settings) -> pa.Table:
    """Give a reason to trades of a time whose ticks have been dropped: their bars can no longer be built."""
    kept_from = _in_transaction(settings, lambda connection: fetch_value(connection, "queries/ticks_kept_from.sql"))
    if kept_from is None:
        return chunk
    dropped = pc.and_(pc.is_null(chunk["reason"]), pc.less(chunk["event_time"], pa.scalar(kept_from)))
    if not pc.any(dropped).as_py():
        return chunk
    reason = f"t is before {kept_from:%Y-%m-%d}, from where on ticks are kept"
    # The other rows may hold what is no text.
    encoded = (encode(settings.avro_schema, [_as_trade(row)]) for row in chunk.filter(dropped).to_pylist())
    values = [
        next(encoded) if is_dropped else value
        for value, is_dropped in zip(chunk["value"].to_pylist(), dropped.to_pylist(), strict=True)
    ]
    chunk = chunk.set_column(
        chunk.schema.get_field_index("reason"), "reason", pc.if_else(dropped, reason, chunk["reason"])
    )
    return chunk.set_column(chunk.schema.get_field_index("value"), "value", pa.array(values, chunk["value"].type))


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


def _dead_letter(rejected: pa.Table, settings: Settings) -> None:
    """Write records to the dead-letter topic, with their reason and origin, and wait until they are there."""
    if rejected.num_rows == 0:
        return
    producer = _dead_letter_producer(settings)
    failures: list[KafkaError] = []

    def note(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    origin = ("reason", "topic", "partition", "offset", "index")
    # Not the other columns, which may hold what is no text.
    for row in rejected.select([*origin, "value", "received_at"]).to_pylist():
        headers = {name: row[name] for name in origin}
        producer.produce(
            settings.dead_letter_topic,
            row["value"],
            headers={name: str(value).encode() for name, value in headers.items() if value is not None},
            timestamp=int(row["received_at"].timestamp() * 1000),
            on_delivery=note,
        )
        producer.poll(0)
    producer.flush()
    if failures:
        raise KafkaException(failures[0])
