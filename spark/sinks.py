"""Writing batches into TimescaleDB, from Spark's workers, so that a batch may come again without harm.

Spark calls a sink at least once for each batch. Ticks have a key that does not depend on the batch (seq);
a bar is replaced only by one built from at least as many ticks.

Each function here runs in a Python worker and keeps one connection there from batch to batch. While the
database is away it waits, and says so in the log of the stream: the batch is finished when it is back.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from pgpq import ArrowToPostgresBinaryEncoder
from pyspark.sql import DataFrame, Row

from stock_pipeline.database import load_sql, until_available
from stock_pipeline.ingest.topics import client_settings
from stock_pipeline.settings import Settings

log = logging.getLogger(__name__)

CHUNK_ROWS = 200_000
"""Most rows written in one transaction, so that memory does not grow with the batch."""

LATENCY_SAMPLE = 1_000
"""Most latencies reported for each partition of a batch."""

TICK_COLUMNS = ("symbol", "price", "event_time", "volume", "seq", "conditions", "received_at")

WRITTEN = "rows long, rejected long, latencies array<double>"
"""Schema of a sink's report, a row for each chunk: rows written, rows rejected, seconds from receipt to commit."""


def write_ticks(rows: DataFrame, settings: Settings) -> list[Row]:
    """Write trades to tick_data and everything else to the dead-letter topic; one row of WRITTEN for each chunk."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in _chunks(batches):
            is_trade = pc.is_null(chunk["reason"])
            rejected = chunk.filter(pc.invert(is_trade))
            _dead_letter(rejected, settings)
            trades = chunk.filter(is_trade).select(TICK_COLUMNS)
            trades = trades.sort_by([("symbol", "ascending"), ("event_time", "ascending"), ("seq", "ascending")])
            _in_transaction(settings, partial(_copy_ticks, trades))
            yield _report(trades["received_at"], rejected.num_rows)

    return rows.mapInArrow(write, WRITTEN).collect()


def write_bars(bars: DataFrame, settings: Settings) -> list[Row]:
    """Write bars to ohlcv_data; one row of WRITTEN for each chunk."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in _chunks(batches):
            values = {name: chunk[name].to_pylist() for name in chunk.column_names}
            _in_transaction(settings, partial(_upsert_bars, values))
            yield _report(chunk["newest_receipt"], 0)

    return bars.mapInArrow(write, WRITTEN).collect()


def _chunks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The batches of a partition, gathered into tables of about CHUNK_ROWS rows."""
    gathered: list[pa.RecordBatch] = []
    for batch in batches:
        gathered.append(batch)
        if sum(part.num_rows for part in gathered) >= CHUNK_ROWS:
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
    return psycopg.connect(conninfo)


def _in_transaction(settings: Settings, write: Callable[[psycopg.Connection], object]) -> None:
    """Call `write` and commit, again and again while the database is away."""
    for attempt in until_available(settings):
        with attempt:
            try:
                connection = _connection(settings.conninfo("writer"))
                write(connection)
                connection.commit()
            except psycopg.Error:
                _forget_connection(settings)
                raise


def _forget_connection(settings: Settings) -> None:
    """Close the worker's connection, whatever its state, so that the next try begins afresh."""
    if _connection.cache_info().currsize:
        try:
            _connection(settings.conninfo("writer")).close()
        finally:
            _connection.cache_clear()


def _copy_ticks(trades: pa.Table, connection: psycopg.Connection) -> None:
    """Insert trades, those that are there already left as they are.

    The plain COPY is twice as fast as the one through a temporary table, which only a repeated batch needs.
    """
    if trades.num_rows == 0:
        return
    encoder = ArrowToPostgresBinaryEncoder(trades.schema)
    parts = [encoder.write_header(), *(encoder.write_batch(part) for part in trades.to_batches()), encoder.finish()]
    content = b"".join(parts)
    try:
        with connection.cursor() as cursor, cursor.copy(load_sql("queries/copy_ticks.sql")) as copy:
            copy.write(content)
    except psycopg.errors.UniqueViolation:
        connection.rollback()
        connection.execute(load_sql("queries/create_tick_batch.sql"))
        with connection.cursor() as cursor, cursor.copy(load_sql("queries/copy_tick_batch.sql")) as copy:
            copy.write(content)
        connection.execute(load_sql("queries/insert_tick_batch.sql"))


def _upsert_bars(bars: Mapping[str, Sequence[object]], connection: psycopg.Connection) -> None:
    connection.execute(load_sql("queries/upsert_bars.sql"), bars)


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

    for row in rejected.to_pylist():
        headers = {name: row[name] for name in ("reason", "topic", "partition", "offset", "index")}
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
