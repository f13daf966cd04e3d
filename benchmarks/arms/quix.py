"""Quix Streams with its sink for PostgreSQL; into the product's own tables. Runs in a Python environment of its own.

Counted from the first message on: joining a consumer group takes seconds that have nothing to do with speed.
"""

import json
import os
import tempfile
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from quixstreams import Application
from quixstreams.dataframe import StreamingDataFrame
from quixstreams.dataframe.windows import Count, Earliest, Latest, Max, Min, Sum
from quixstreams.models.serializers.avro import AvroDeserializer
from quixstreams.sinks.community.postgresql import PostgreSQLSink

from benchmarks.arm import serve

TARGET = json.loads(os.environ["QUIX"])
"""schema, trades, kafka, and the arguments of a connection to PostgreSQL."""

MINUTE = 60_000


def run(topic: str, sink: PostgreSQLSink, shape: Any) -> float:
    began = 0.0

    def note_start(message: dict[str, Any]) -> list[dict[str, Any]]:
        nonlocal began
        began = began or time.perf_counter()
        return message["data"]

    with tempfile.TemporaryDirectory() as state:
        application = Application(
            TARGET["kafka"],
            consumer_group=f"quix-{uuid.uuid4()}",
            auto_offset_reset="earliest",
            state_dir=state,
            loglevel="WARNING",
            use_changelog_topics=False,
        )
        source = application.topic(topic, value_deserializer=AvroDeserializer(TARGET["schema"]))
        shape(application.dataframe(source).apply(note_start, expand=True)).sink(sink)
        application.run(count=TARGET["trades"], collect=False)
    return time.perf_counter() - began


def into(table: str, *key: str) -> PostgreSQLSink:
    return PostgreSQLSink(
        **TARGET["postgresql"],
        table_name=table,
        schema_auto_update=False,
        include_metadata=False,
        primary_key_columns=key,
        upsert_on_primary_key=True,
    )


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def ticks(trades: StreamingDataFrame) -> StreamingDataFrame:
    numbers = iter(range(1 << 62))

    def row(trade: dict[str, Any], _key: object, received: int, _headers: object) -> dict[str, Any]:
        return {
            "symbol": trade["s"],
            "price": trade["p"],
            "event_time": moment(trade["t"]),
            "volume": trade["v"],
            "seq": next(numbers),
            "received_at": moment(received),
        }

    return trades.apply(row, metadata=True)


def bars(trades: StreamingDataFrame) -> StreamingDataFrame:
    def row(window: dict[str, Any], key: bytes, _timestamp: int, _headers: object) -> dict[str, Any]:
        values = {name: window[name] for name in ("open", "high", "low", "close", "volume", "ticks")}
        return {"timestamp": moment(window["start"]), "symbol": key.decode(), **values, "trades": window["ticks"]}

    timed = trades.set_timestamp(lambda trade, *_: trade["t"])
    windows = timed.tumbling_window(MINUTE).agg(
        open=Earliest("p"), high=Max("p"), low=Min("p"), close=Latest("p"), volume=Sum("v"), ticks=Count()
    )
    return windows.current().apply(row, metadata=True)


if __name__ == "__main__":
    serve(
        {
            "ticks": lambda topic: run(topic, into("tick_data", "symbol", "event_time", "seq"), ticks),
            "bars": lambda topic: run(topic, into("ohlcv_data", "timestamp", "symbol"), bars),
        }
    )
