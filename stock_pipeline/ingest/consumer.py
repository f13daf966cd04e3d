"""The messages of the topic, decoded: for people who look and scripts that pipe."""

from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stock_pipeline.errors import NotATrade
from stock_pipeline.ingest.message import decode
from stock_pipeline.ingest.topics import client_settings, partitions, until_reachable
from stock_pipeline.settings import Settings

OFFSET_BEGINNING, OFFSET_END = -2, -1


def consume(settings: Settings, from_beginning: bool) -> Iterator[dict[str, Any]]:
    """Each message of the topic, for ever; one that cannot be decoded has `error` in place of `data`."""
    consumer = Consumer(
        {**client_settings(settings), "group.id": "stock-pipeline-consume", "enable.auto.commit": False}
    )
    start = OFFSET_BEGINNING if from_beginning else OFFSET_END
    try:
        for attempt in until_reachable(settings):
            with attempt:
                numbers = partitions(consumer, settings.kafka_topic)
        consumer.assign([TopicPartition(settings.kafka_topic, number, start) for number in numbers])
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if error.code() not in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
                    raise KafkaException(error)
                continue
            key = message.key()
            place = {
                "partition": message.partition(),
                "offset": message.offset(),
                "received_ms": message.timestamp()[1],
                "key": key.decode(errors="replace") if isinstance(key, bytes) else key,
            }
            try:
                yield {**place, **decode(settings.avro_schema, message.value() or b"")}
            except NotATrade as reason:
                yield {**place, "error": str(reason)}
    finally:
        consumer.close()
