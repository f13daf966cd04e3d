"""One Python process: confluent-kafka, fastavro, COPY with ON CONFLICT; into the product's own tables."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import fastavro
import psycopg
from confluent_kafka import Consumer, TopicPartition

from benchmarks.arm import serve
from stock_pipeline.ingest.topics import client_settings
from stock_pipeline.settings import load_settings

SETTINGS = load_settings()
SCHEMA = fastavro.parse_schema(SETTINGS.avro_schema)

AT_ONCE = 6_000
"""Messages in a transaction."""

CREATE_TICKS = "CREATE TEMPORARY TABLE batch (LIKE tick_data) ON COMMIT DROP"
COPY_TICKS = "COPY batch (symbol, price, event_time, volume, seq, received_at) FROM STDIN"
INSERT_TICKS = "INSERT INTO tick_data SELECT * FROM batch ON CONFLICT DO NOTHING"

CREATE_BARS = "CREATE TEMPORARY TABLE batch (LIKE ohlcv_data INCLUDING DEFAULTS) ON COMMIT DROP"
COPY_BARS = "COPY batch (timestamp, symbol, open, high, low, close, volume, trades, ticks, vwap) FROM STDIN"
INSERT_BARS = """
INSERT INTO ohlcv_data SELECT * FROM batch ON CONFLICT (timestamp, symbol) DO UPDATE SET
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume,
    trades = excluded.trades, ticks = excluded.ticks, vwap = excluded.vwap
"""

Placed = tuple[dict[str, Any], int, datetime]
"""A trade, its seq, and when it was received."""


def batches(topic: str) -> Iterator[list[Placed]]:
    """All trades of the topic, by transaction."""
    consumer = Consumer({**client_settings(SETTINGS), "group.id": "one-process", "enable.auto.commit": False})
    places = [TopicPartition(topic, number, 0) for number in consumer.list_topics(topic).topics[topic].partitions]
    left = sum(consumer.get_watermark_offsets(place)[1] for place in places)
    consumer.assign(places)
    while left:
        messages = consumer.consume(min(AT_ONCE, left), timeout=10)
        left -= len(messages)
        yield [placed for message in messages for placed in decode(message)]
    consumer.close()


def decode(message: Any) -> Iterator[Placed]:
    record = fastavro.schemaless_reader(io.BytesIO(message.value()), SCHEMA, None)
    first, received = message.offset() << 22 | message.partition() << 12, moment(message.timestamp()[1])
    for index, trade in enumerate(record["data"]):
        yield trade, first | index, received


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def write(connection: psycopg.Connection, statements: tuple[str, str, str], lines: list[str]) -> None:
    create, copy, insert = (text.encode() for text in statements)
    connection.execute(create)
    with connection.cursor() as cursor, cursor.copy(copy) as target:
        target.write("".join(lines))
    connection.execute(insert)
    connection.commit()


def catch_up_ticks(topic: str) -> None:
    with psycopg.connect(SETTINGS.conninfo("owner")) as connection:
        for batch in batches(topic):
            lines = [
                f"{trade['s']}\t{trade['p']}\t{moment(trade['t'])}\t{trade['v']}\t{seq}\t{received}\n"
                for trade, seq, received in batch
            ]
            write(connection, (CREATE_TICKS, COPY_TICKS, INSERT_TICKS), lines)


def catch_up_bars(topic: str) -> None:
    known: dict[tuple[int, str], Bar] = {}
    with psycopg.connect(SETTINGS.conninfo("owner")) as connection:
        for batch in batches(topic):
            touched = {}
            for trade, seq, _ in batch:
                key = trade["t"] // 60_000 * 60_000, trade["s"]
                bar = known.get(key)
                if bar is None:
                    bar = known[key] = Bar()
                bar.add(trade["t"], seq, trade["p"], trade["v"])
                touched[key] = bar
            lines = [f"{moment(minute)}\t{symbol}\t{bar}\n" for (minute, symbol), bar in touched.items()]
            write(connection, (CREATE_BARS, COPY_BARS, INSERT_BARS), lines)


class Bar:
    __slots__ = ("close", "first", "high", "last", "low", "notional", "open", "ticks", "trades", "volume")

    def __init__(self) -> None:
        self.first, self.last = (1 << 62, 0), (0, 0)
        self.open = self.high = self.close = self.volume = self.notional = 0.0
        self.low = float("inf")
        self.trades = self.ticks = 0

    def add(self, time: int, seq: int, price: float, volume: float) -> None:
        order = time, seq
        if order < self.first:
            self.first, self.open = order, price
        if order > self.last:
            self.last, self.close = order, price
        if price > self.high:
            self.high = price
        if price < self.low:
            self.low = price
        self.volume += volume
        self.notional += price * volume
        self.trades += volume > 0
        self.ticks += 1

    def __str__(self) -> str:
        vwap = self.notional / self.volume if self.volume else r"\N"
        values = (self.open, self.high, self.low, self.close, self.volume, self.trades, self.ticks, vwap)
        return "\t".join(map(str, values))


if __name__ == "__main__":
    serve({"ticks": catch_up_ticks, "bars": catch_up_bars})
