"""The producer's job and sensor, and the job that changes its symbols."""

from dagster import AssetObservation, Failure, OpExecutionContext, in_process_executor, job, op

from stock_pipeline.defs.supervision import Events, Resources, service_job, service_sensor
from stock_pipeline.services.processes import wait_until
from stock_pipeline.services.service import Heartbeat
from stock_pipeline.services.supervisor import log_path, read_heartbeat
from stock_pipeline.settings import load_settings

TAKEN_OVER = 10.0
"""Seconds that the producer may take to subscribe to other symbols."""


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


@op(description="Tells the producer to read its settings again, and waits until it has subscribed to their symbols.")
def subscribe_to_symbols_of_settings(context: OpExecutionContext) -> None:
    settings = load_settings()
    beat = read_heartbeat(settings, "producer")
    if beat is None or not beat.is_alive():
        raise Failure("the producer is not running: it takes the symbols of the settings when it starts")
    beat.hang_up()

    def subscribed() -> list[str]:
        newest = read_heartbeat(settings, "producer")
        return newest.symbols if newest else []

    if not wait_until(lambda: subscribed() == list(settings.symbols), TAKEN_OVER):
        raise Failure(
            f"the producer stays with {', '.join(subscribed())}: see {log_path(settings, 'producer')}; where SYMBOLS "
            "is in the producer's environment, .env and config.json do not count"
        )
    context.log.info(f"the producer has subscribed to {', '.join(settings.symbols)}; it logs those that are refused")


@job(
    description="Subscribes the running producer to the symbols of .env or config.json as they are now.",
    executor_def=in_process_executor,
)
def change_symbols() -> None:
    subscribe_to_symbols_of_settings()
