"""From the feed to Kafka: each frame is split by symbol, checked, encoded and delivered, or dead-lettered."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from stock_pipeline.ingest.finnhub import FinnhubClient
from stock_pipeline.ingest.gaps import FeedWatch, GapJournal, journal_path, tell_gaps
from stock_pipeline.ingest.topics import client_settings, ensure_topics
from stock_pipeline.ingest.trade import Rejected, read_frame
from stock_pipeline.services.service import Heartbeat, Service, record_path
from stock_pipeline.settings import Settings

log = logging.getLogger(__name__)

FLUSH_PATIENCE = 20.0
"""Seconds at stop for the messages that are still on their way to Kafka."""

LOOK = 1.0
"""Seconds between two looks for silent symbols."""

LOOKS_PER_TELLING = 5
"""How many looks there are between two tellings of gaps to PostgreSQL."""

MAX_DEAD_LETTER = 900_000
"""Longest raw text kept in a dead letter, bytes: a Kafka message has at most 1 MiB."""


class TradeProducer:
    """Delivers frames to Kafka in order and once each, from one thread; another serves librdkafka's callbacks.

    Counts, in the service: frames, trades, messages, dead_letters, undelivered, errors.
    """

    def __init__(self, settings: Settings, service: Service, watch: FeedWatch) -> None:
        self._settings = settings
        self._schema = settings.avro_schema
        self._service = service
        self._watch = watch
        self._producer = Producer(
            {
                **client_settings(settings),
                "client.id": "stock-pipeline-producer",
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "compression.type": "lz4",
                # The default gives up after five minutes without a broker.
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 1_048_576,
                "error_cb": self._on_error,
            }
        )
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._serve_callbacks, daemon=True)
        self._poller.start()

    def handle(self, raw: bytes, received_ms: int) -> None:
        """Take in one frame."""
        counts = self._service.counts
        counts["frames"] += 1
        frame = read_frame(self._schema, raw, received_ms)
        if frame.control is not None and frame.control["type"] == "error":
            counts["errors"] += 1
            text = str(frame.control.get("msg"))
            log.error("Finnhub: %s", text[:500])
            self._watch.rejected(text, received_ms / 1000)
        for message in frame.messages:
            self._watch.received(message.symbol, received_ms / 1000)
            self._produce(self._settings.kafka_topic, message.value, message.symbol.encode(), received_ms)
            counts["messages"] += 1
            counts["trades"] += message.trades
        for rejected in frame.rejected:
            self._dead_letter(rejected, received_ms)

    def _serve_callbacks(self) -> None:
        """Learn of deliveries and errors also while no frame comes."""
        while not self._closed.is_set():
            self._producer.poll(0.5)

    def _dead_letter(self, rejected: Rejected, received_ms: int) -> None:
        headers: list[tuple[str, bytes]] = [("reason", rejected.reason.encode()), ("origin", b"websocket")]
        if len(rejected.raw) > MAX_DEAD_LETTER:
            headers.append(("truncated_from", str(len(rejected.raw)).encode()))
        self._service.counts["dead_letters"] += 1
        self._produce(self._settings.dead_letter_topic, rejected.raw[:MAX_DEAD_LETTER], None, received_ms, headers)

    def _produce(
        self,
        topic: str,
        value: bytes,
        key: bytes | None,
        timestamp: int,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        waiting_since: float | None = None
        while True:
            try:
                self._producer.produce(
                    topic, value, key, timestamp=timestamp, headers=list(headers), on_delivery=self._on_delivery
                )
                return
            except BufferError:
                # The queue is full because the broker is slow or away: hold the feed back rather than lose trades.
                if waiting_since is None:
                    waiting_since = time.monotonic()
                    log.warning("the queue to Kafka is full (%d messages): the feed waits", len(self._producer))
                self._service.state = "waiting for Kafka"
                time.sleep(0.1)
                self._watch.held_back(time.time())

    def _on_delivery(self, error: KafkaError | None, message: Delivered) -> None:
        if error is not None:
            self._service.counts["undelivered"] += 1
            log.error("a message for %s was not delivered: %s", message.topic(), error)
            return
        self._service.state = "running"
        self._service.counts["delivered"] += 1
        partition, offset = message.partition(), message.offset()
        if message.topic() == self._settings.kafka_topic and partition is not None and offset is not None:
            self._service.offsets[partition] = offset + 1

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._service.state = "waiting for Kafka"
            log.warning(
                "Kafka at %s (kafka_bootstrap_servers) cannot be reached; %d messages wait",
                self._settings.kafka_bootstrap_servers,
                len(self._producer),
            )

    def close(self) -> None:
        """Deliver what is left; says what could not be."""
        self._closed.set()
        self._poller.join()
        left = self._producer.flush(FLUSH_PATIENCE)
        if left:
            self._service.counts["undelivered"] += left
            log.error("%d messages could not be delivered to Kafka within %.0f s and are lost", left, FLUSH_PATIENCE)


@contextmanager
def watch_feed(settings: Settings, service: Service, last_alive: float | None) -> Iterator[FeedWatch]:
    """The watch, and a thread that lets it look and tells PostgreSQL, for as long as the producer runs.

    Counts, in the service: gaps.

    Args:
        last_alive: the previous producer's newest heartbeat, UNIX seconds; None: there was none.
    """
    journal = GapJournal(journal_path(settings))
    watch = FeedWatch(settings.symbols, journal)
    watch.started(time.time(), last_alive)
    ended = threading.Event()

    def look_and_tell() -> None:
        looks = 0
        while not ended.wait(LOOK):
            watch.look(time.time())
            service.counts["gaps"] = watch.opened
            if looks % LOOKS_PER_TELLING == 0:
                tell_gaps(settings, journal)
            looks += 1

    thread = threading.Thread(target=look_and_tell, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
        service.counts["gaps"] = watch.opened
        tell_gaps(settings, journal)
        journal.shut()


def produce(settings: Settings) -> None:
    """Run the producer until SIGTERM or SIGINT.

    Raises:
        AlreadyRunning: there is a producer in this home.
    """
    # Read before the service writes its own.
    previous = Heartbeat.read(record_path(settings, "producer"))
    last_alive = previous.beat_at if previous else None
    with Service("producer", settings) as service, watch_feed(settings, service, last_alive) as watch:
        service.symbols = list(settings.symbols)
        service.state = "waiting for Kafka"
        try:
            ensure_topics(settings, patience=None, stop=service.stop)
        except KafkaException:
            if service.stop.is_set():
                return
            raise
        producer = TradeProducer(settings, service, watch)
        try:
            FinnhubClient(
                settings.feed_url,
                settings.feed_token,
                settings.symbols,
                service.stop,
                producer.handle,
                lambda state: setattr(service, "state", state),
                watch,
            ).run()
        finally:
            watch.stopped(time.time())
            producer.close()
