"""The dead-letter topic: how much of a raw text it takes, and a look at how much came, and why."""

from collections.abc import Mapping
from datetime import UTC, datetime

from confluent_kafka import Consumer, TopicPartition

from stock_pipeline.ingest.message import MAX_MESSAGE_BYTES
from stock_pipeline.ingest.topics import REQUEST_PATIENCE, client_settings, offset_ranges, offset_received_since
from stock_pipeline.settings import Settings


def cut_to_fit(raw: bytes) -> tuple[bytes, Mapping[str, str]]:
    """The value of a dead letter, and the header that says of what length it is the beginning; none where it is all."""
    if len(raw) <= MAX_MESSAGE_BYTES:
        return raw, {}
    return raw[:MAX_MESSAGE_BYTES], {"truncated_from": str(len(raw))}


def dead_letters_since(settings: Settings, since: datetime, limit: int) -> tuple[int, list[Mapping[str, str]]]:
    """How many records the topic got since then by record time, and headers and times of at most `limit` of them.

    Raises:
        UnknownTopic: there is no such topic.
        KafkaException: the broker cannot be reached.
    """
    topic = settings.model_copy(update={"kafka_topic": settings.dead_letter_topic})
    count, places = 0, []
    for partition, (_, end) in offset_ranges(topic).items():
        start = offset_received_since(topic, partition, since.timestamp())
        count += end - start
        places += [
            TopicPartition(topic.kafka_topic, partition, offset) for offset in range(max(start, end - limit), end)
        ]
    return count, _headers(settings, places[:limit])


def _headers(settings: Settings, places: list[TopicPartition]) -> list[Mapping[str, str]]:
    consumer = Consumer(
        {**client_settings(settings), "group.id": "stock-pipeline-dead-letters", "enable.auto.commit": False}
    )
    found: list[Mapping[str, str]] = []
    try:
        for place in places:
            consumer.assign([place])
            message = consumer.poll(REQUEST_PATIENCE)
            if message is None or message.error() is not None:
                continue
            received = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
            headers = {
                name: value.decode(errors="replace") if isinstance(value, bytes) else str(value)
                for name, value in dict(message.headers() or ()).items()
            }
            found.append({"received_at": f"{received:%Y-%m-%d %H:%M:%S}", **headers})
    finally:
        consumer.close()
    return found
