"""The jobs and sensors of the two Spark streams, and what they report of their tables."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster import AssetMaterialization, AssetObservation, DagsterInstance, MetadataValue

from stock_pipeline.defs.supervision import Events, Reporter, Resources, service_job, service_sensor
from stock_pipeline.defs.table_report import bar_metadata, row_count
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.services.service import Heartbeat

PARTITION = "%Y-%m-%d-%H:%M"


def table_reporter(table: str, shown: Callable[[TimescaleResource], Mapping[str, Any]]) -> Reporter:
    """Reports the running hour of a table every REPORT seconds, and a finished hour once more, for good.

    An hour begins as a materialisation and goes on with observations: an asset check counts for a materialisation
    only until the next. The last report of an hour belongs to no run, since deleting an old run deletes what it
    materialised.

    Args:
        shown: what to show of the table, hourly.
    """
    begun: set[datetime] = set()

    def report(beat: Heartbeat, resources: Resources) -> Events:
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        partition = hour.strftime(PARTITION)
        figures: dict[str, Any] = {
            "dagster/partition_row_count": _rows(table, hour, resources),
            **beat.figures,
            "spark_master": resources.spark.master,
            **_link(resources.spark.ui_url(beat)),
        }
        if hour in begun:
            return [AssetObservation(table, partition=partition, metadata=figures)]
        figures |= shown(resources.timescale)
        last = hour - timedelta(hours=1)
        rows = _rows(table, last, resources)
        if rows:
            DagsterInstance.get().report_runless_asset_event(
                AssetMaterialization(
                    table, partition=last.strftime(PARTITION), metadata={"dagster/partition_row_count": rows}
                )
            )
        begun.clear()
        begun.add(hour)
        return [AssetMaterialization(table, partition=partition, metadata=figures)]

    return report


def _ticks_shown(timescale: TimescaleResource) -> dict[str, Any]:
    return row_count(timescale, "tick_data")


def _bars_shown(timescale: TimescaleResource) -> dict[str, Any]:
    return bar_metadata(timescale, "ohlcv_data", before=datetime.now(UTC))


def _link(url: str | None) -> dict[str, MetadataValue]:
    return {"spark_ui": MetadataValue.url(url)} if url else {}


def _rows(table: str, hour: datetime, resources: Resources) -> int:
    values = {"begin": hour, "end": hour + timedelta(hours=1)}
    count: int = resources.timescale.fetch(f"queries/count_{table}.sql", values)[0]["rows"]
    return count


tick_stream = service_job(
    "tick-stream",
    "Supervises the tick stream: Kafka to tick_data, by Spark.",
    table_reporter("tick_data", _ticks_shown),
    consumes_topic=True,
)

ohlcv_stream = service_job(
    "ohlcv-stream",
    "Supervises the ohlcv stream: Kafka to ohlcv_data, by Spark.",
    table_reporter("ohlcv_data", _bars_shown),
    consumes_topic=True,
)

keep_tick_stream_running = service_sensor("tick-stream", tick_stream)
keep_ohlcv_stream_running = service_sensor("ohlcv-stream", ohlcv_stream)
