"""The tables in which the pipeline writes about itself: written by its services, read by the dashboards."""

from collections.abc import Mapping
from typing import NamedTuple

from dagster import AssetSpec, Definitions, definitions

from stock_pipeline.defs.tables import table_metadata


class OperationsTable(NamedTuple):
    parent: str
    description: str


OPERATIONS: Mapping[str, OperationsTable] = {
    "feed_gap": OperationsTable(
        "finnhub_trades",
        "When the feed is known to have been away, and why. Grain: an outage. Key: id. Written by the producer, and by "
        "a stream whose records have expired.",
    ),
    "stream_stats": OperationsTable(
        "stock_ticks",
        "What each stream did: records, rates, lag, latency. Grain: ten seconds of a stream. Key: none. "
        "Written by the streams.",
    ),
    "service_heartbeat": OperationsTable(
        "finnhub_trades",
        "The newest heartbeat of the producer and the streams, with what they counted since they started. Grain: a "
        "service. Key: service. Written by each every ten seconds.",
    ),
    "ohlcv_restatement": OperationsTable(
        "ohlcv_data",
        "Every change of a bar later than two minutes after its minute, with old and new values. Grain: a change. "
        "Key: none. Written by a trigger of ohlcv_data.",
    ),
    "asset_check_state": OperationsTable(
        "ohlcv_data",
        "The newest evaluation of each asset check. Grain: a check. Key: (asset, check). Written by the sensor "
        "tell_of_checks.",
    ),
}


@definitions
def defs() -> Definitions:
    return Definitions(
        assets=[
            AssetSpec(
                name,
                deps=[table.parent],
                group_name="operations",
                kinds={"postgres", "table"},
                description=table.description,
                metadata=table_metadata(name),
            )
            for name, table in OPERATIONS.items()
        ]
    )
