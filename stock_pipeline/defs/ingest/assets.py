"""The source and the Kafka topics: made outside Dagster, observed by the producer's run."""

from collections.abc import Iterator
from typing import Any

from dagster import AssetSpec, TableColumn, TableColumnConstraints, TableSchema

from stock_pipeline.settings import load_settings

SETTINGS = load_settings()


def _avro_columns(record: dict[str, Any], prefix: str = "") -> Iterator[TableColumn]:
    """The fields of an Avro record, those of nested records with dots."""
    for field in record["fields"]:
        kind, name = field["type"], f"{prefix}{field['name']}"
        nullable = isinstance(kind, list) and "null" in kind
        items = kind.get("items") if isinstance(kind, dict) else None
        yield TableColumn(
            name=name,
            type="array" if items else " | ".join(_name(part) for part in kind) if nullable else _name(kind),
            description=field.get("doc"),
            constraints=TableColumnConstraints(nullable=nullable),
        )
        if isinstance(items, dict):
            yield from _avro_columns(items, f"{name}.")


def _name(kind: Any) -> str:
    return f"array<{kind['items']}>" if isinstance(kind, dict) else str(kind)


TRADES = TableSchema(columns=list(_avro_columns(SETTINGS.avro_schema)))
"""Of a frame as of a message."""

finnhub_trades = AssetSpec(
    "finnhub_trades",
    group_name="ingest",
    kinds={"websocket"},
    description=(
        "Trades as Finnhub's WebSocket pushes them. Grain: a frame of JSON, of several trades of several symbols. Key: "
        "none. They cannot be asked for again: what is missed is lost, and late trades come whenever the venue reports "
        "them. Fresh within seconds of the trade, while its market is open."
    ),
    metadata={
        "dagster/column_schema": TRADES,
        "symbols": list(SETTINGS.symbols),
        "url": SETTINGS.feed_url,
    },
)

stock_ticks = AssetSpec(
    "stock_ticks",
    deps=["finnhub_trades"],
    group_name="ingest",
    kinds={"kafka", "avro"},
    description=(
        "The Kafka topic of the trades. Grain: a message for each symbol of a frame; record time is the receipt of the "
        "frame. Key: symbol. From its acknowledgement here on no trade is lost, however late it comes. Fresh within "
        "milliseconds of the frame."
    ),
    metadata={
        "dagster/column_schema": TRADES,
        "topic": SETTINGS.kafka_topic,
        "retention_days": SETTINGS.kafka_retention_days,
    },
)

DEAD_LETTERS = TableSchema(
    columns=[
        TableColumn("value", "bytes", "what came, as it came"),
        TableColumn("header.reason", "string", "why it is no trade"),
        TableColumn("header.topic", "string", "where it stood in Kafka; none where it came from the feed"),
        TableColumn("header.partition", "int"),
        TableColumn("header.offset", "long"),
        TableColumn("header.index", "int", "which trade of the message, where it is one of several"),
    ]
)

dead_letters = AssetSpec(
    "stock_ticks_dead_letter",
    deps=["finnhub_trades", "stock_ticks"],
    group_name="ingest",
    kinds={"kafka"},
    description=(
        "What is no trade. Grain: a record, a frame or a trade of either. Key: none. Written by the producer and the "
        "tick stream within seconds of its receipt; late or not makes no difference."
    ),
    metadata={"dagster/column_schema": DEAD_LETTERS, "topic": SETTINGS.dead_letter_topic},
)
