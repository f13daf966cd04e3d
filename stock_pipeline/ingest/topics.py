"""The Kafka topics, and waiting for a broker that is away."""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from tenacity import Retrying

from stock_pipeline.errors import UnknownTopic
from stock_pipeline.retry import until_back
from stock_pipeline.settings import Settings

log = logging.getLogger(__name__)

PARTITIONS = 4

REQUEST_PATIENCE = 5.0
"""Seconds that one request to the broker may take."""

BROKER_AWAY = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_CONTROLLER,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
)
"""Codes that say that the broker cannot be reached or is just starting, rather than that it refuses."""


def client_settings(settings: Settings) -> dict[str, Any]:
    """What every librdkafka client of this project is given."""
    given = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "security.protocol": settings.kafka_security_protocol,
        "ssl.ca.location": settings.kafka_ssl_ca,
        "ssl.certificate.location": settings.kafka_ssl_certificate,
        "ssl.key.location": settings.kafka_ssl_key,
    }
    if settings.kafka_sasl_username and settings.kafka_sasl_password:
        given["sasl.mechanism"] = settings.kafka_sasl_mechanism
        given["sasl.username"] = settings.kafka_sasl_username
        given["sasl.password"] = settings.kafka_sasl_password.get_secret_value()
    # Connections are reported by our own retries, one line each, not by a line for every attempt.
    return {
        "log_level": 2,
        "error_cb": say_refusal,
        **{name: str(value) for name, value in given.items() if value is not None},
    }


def say_refusal(error: KafkaError) -> None:
    """Log that the broker does not want us, which to librdkafka's requests looks like one that is away."""
    if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
        log.error("Kafka refuses us: %s; see kafka_security_protocol, kafka_sasl_* and kafka_ssl_*", error.str())


def list_topics(client: AdminClient | Consumer, topic: str | None = None) -> Any:
    """The brokers, and all topics or one.

    Raises:
        KafkaException: the broker cannot be reached, or refuses us: then the log says so.
    """
    try:
        return client.list_topics(topic, timeout=REQUEST_PATIENCE)
    except KafkaException:
        # Lets librdkafka call what it has to say.
        client.poll(0)
        raise


def admin_client(settings: Settings) -> AdminClient:
    return AdminClient(client_settings(settings))


def broker_is_away(error: BaseException) -> bool:
    """Whether another attempt, later, can succeed."""
    return isinstance(error, KafkaException) and error.args[0].code() in BROKER_AWAY


def until_reachable(settings: Settings, patience: float | None = None, stop: threading.Event | None = None) -> Retrying:
    """Retries what meets a broker that cannot be reached; see `until_back`."""
    server = f"Kafka at {settings.kafka_bootstrap_servers} (kafka_bootstrap_servers)"
    return until_back(server, broker_is_away, patience, stop)


def ensure_topics(
    settings: Settings,
    patience: float | None = 60,
    stop: threading.Event | None = None,
    also: Iterable[str] = (),
) -> None:
    """Create the topic of the trades and the dead-letter topic where they are missing.

    Args:
        patience: seconds to wait for a broker that is away; None: for ever.
        stop: gives up when it is set.
        also: other topics, of settings that were.
    """
    for attempt in until_reachable(settings, patience, stop):
        with attempt:
            _create_topics(settings, also)


def _create_topics(settings: Settings, also: Iterable[str]) -> None:
    client = admin_client(settings)
    known = list_topics(client)
    configuration = {
        "retention.ms": str(settings.kafka_retention_days * 86_400_000),
        "message.timestamp.type": "CreateTime",
    }
    partitions = dict.fromkeys(also, PARTITIONS) | {settings.kafka_topic: PARTITIONS, settings.dead_letter_topic: 1}
    missing = [
        NewTopic(name, count, replication_factor=min(3, len(known.brokers)), config=configuration)
        for name, count in partitions.items()
        if name not in known.topics
    ]
    for name, created in client.create_topics(missing, request_timeout=REQUEST_PATIENCE).items() if missing else ():
        try:
            created.result()
            log.info("created topic %s with %d partitions", name, partitions[name])
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def topic_id(settings: Settings) -> str:
    """Kafka's own id of the topic; one that is deleted and created again has another.

    Raises:
        UnknownTopic: there is no such topic.
        KafkaException: the broker cannot be reached.
    """
    name = settings.kafka_topic
    client = admin_client(settings)
    found = client.describe_topics(TopicCollection([name]), request_timeout=REQUEST_PATIENCE)
    try:
        return str(found[name].result().topic_id)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise UnknownTopic(f"kafka_topic: there is no topic {name}; `stock-pipeline up` creates it") from error
        raise


@contextmanager
def _consumer(settings: Settings, enable_partition_eof: bool = False) -> Iterator[Consumer]:
    """A consumer that belongs to no group and only looks."""
    consumer = Consumer(
        {
            **client_settings(settings),
            "group.id": "stock-pipeline-offsets",
            "enable.auto.commit": False,
            "enable.partition.eof": enable_partition_eof,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def offset_ranges(settings: Settings) -> dict[int, tuple[int, int]]:
    """For each partition of the topic the first offset and the one after the last.

    Raises:
        UnknownTopic: there is no such topic.
        KafkaException: the broker cannot be reached.
    """
    with _consumer(settings) as consumer:
        return {
            partition: consumer.get_watermark_offsets(
                TopicPartition(settings.kafka_topic, partition), timeout=REQUEST_PATIENCE
            )
            for partition in partitions(consumer, settings.kafka_topic)
        }


def received_at(settings: Settings, partition: int, offset: int) -> float:
    """Record time, in seconds since the epoch, of the first record at or after an offset.

    Raises:
        KafkaException: the broker cannot be reached, or there is no such record.
    """
    with _consumer(settings) as consumer:
        consumer.assign([TopicPartition(settings.kafka_topic, partition, offset)])
        message = consumer.poll(REQUEST_PATIENCE)
        if message is None or message.error() is not None:
            raise KafkaException(message.error() if message else KafkaError(KafkaError._TIMED_OUT))
        return message.timestamp()[1] / 1000


def offset_received_since(settings: Settings, partition: int, since: float) -> int:
    """The first offset of a partition whose record time is `since` or later, else its end.

    Args:
        since: seconds since the epoch.
    """
    with _consumer(settings) as consumer:
        wanted = TopicPartition(settings.kafka_topic, partition, int(since * 1000))
        found = consumer.offsets_for_times([wanted], timeout=REQUEST_PATIENCE)[0]
        return (
            found.offset if found.offset >= 0 else consumer.get_watermark_offsets(wanted, timeout=REQUEST_PATIENCE)[1]
        )


def headers_since(settings: Settings, topic: str, since_ms: int) -> Iterator[Mapping[str, str | bytes | None]]:
    """The headers of each record of a topic, from the first on whose time is `since_ms`, UNIX milliseconds, or later.

    Raises:
        KafkaException: the broker cannot be reached.
    """
    with _consumer(settings, enable_partition_eof=True) as consumer:
        wanted = [TopicPartition(topic, number, since_ms) for number in partitions(consumer, topic)]
        begin = [p for p in consumer.offsets_for_times(wanted, timeout=REQUEST_PATIENCE) if p.offset >= 0]
        consumer.assign(begin)
        unread = {place.partition for place in begin}
        while unread:
            message = consumer.poll(REQUEST_PATIENCE)
            error = KafkaError(KafkaError._TIMED_OUT) if message is None else message.error()
            if message is not None and error is None:
                yield dict(message.headers() or ())
            elif message is not None and error is not None and error.code() == KafkaError._PARTITION_EOF:
                unread.discard(message.partition())
            else:
                raise KafkaException(error)


def partitions(consumer: Consumer, topic: str) -> list[int]:
    """Numbers of a topic's partitions."""
    metadata = list_topics(consumer, topic).topics[topic]
    if metadata.error is not None:
        raise UnknownTopic(f"kafka_topic: there is no topic {topic}; `stock-pipeline up` creates it")
    return sorted(metadata.partitions)
