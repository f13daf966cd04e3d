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


finnhub_trades = AssetSpec(
    "finnhub_trades",
    group_name="ingest",
    kinds={"websocket"},
    description=(
        "Trades as Finnhub's WebSocket pushes them, several of several symbols in a frame. They cannot be asked for "
        "again: what is missed is lost."
    ),
    metadata={"symbols": list(SETTINGS.symbols), "url": SETTINGS.feed_url},
)

stock_ticks = AssetSpec(
    "stock_ticks",
    deps=["finnhub_trades"],
    group_name="ingest",
    kinds={"kafka", "avro"},
    description=(
        "The Kafka topic of the trades: one message for each symbol of a frame, keyed by symbol; record time is the "
        "receipt of the frame. From its acknowledgement here on no trade is lost."
    ),
    metadata={
        "dagster/column_schema": TableSchema(columns=list(_avro_columns(SETTINGS.avro_schema))),
        "topic": SETTINGS.kafka_topic,
        "retention_days": SETTINGS.kafka_retention_days,
    },
)

dead_letters = AssetSpec(
    "stock_ticks_dead_letter",
    deps=["finnhub_trades", "stock_ticks"],
    group_name="ingest",
    kinds={"kafka"},
    description=(
        "What is no trade: the raw bytes, with the reason and the origin in headers. Written by the producer and the "
        "tick stream."
    ),
    metadata={"topic": SETTINGS.dead_letter_topic},
)
