"""The producer's job and sensor."""

from dagster import AssetObservation

from stock_pipeline.defs.supervision import Events, Resources, service_job, service_sensor
from stock_pipeline.services.service import Heartbeat


def report_feed(beat: Heartbeat, resources: Resources) -> Events:
    """Observations of the source and the topics."""
    ranges = resources.kafka.offset_ranges()
    counts = {
        name: beat.counts.get(name, 0) for name in ("frames", "trades", "messages", "dead_letters", "undelivered")
    }
    held = {f"partition_{partition}_end": end for partition, (_, end) in ranges.items()}
    return [
        AssetObservation("finnhub_trades", metadata={"frames": counts["frames"], "trades": counts["trades"]}),
        AssetObservation(
            "stock_ticks",
            metadata={
                "messages_held": sum(end - first for first, end in ranges.values()),
                "undelivered": counts["undelivered"],
                "spooled": int(beat.figures.get("spooled", 0)),
                **held,
            },
        ),
        AssetObservation("stock_ticks_dead_letter", metadata={"from_producer": counts["dead_letters"]}),
    ]


producer = service_job("producer", "Supervises the producer: WebSocket to Kafka.", report_feed, consumes_topic=False)

keep_producer_running = service_sensor("producer", producer)
