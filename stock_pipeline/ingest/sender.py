"""From the spool to Kafka: every record in order and once, whatever dies in between.

A record stays in the spool until Kafka has acknowledged it, and carries its id there in the header SPOOL_ID. What is
left in the spool at a start may be in Kafka already: the topics' ends are read, and what carries an id of this spool is
dropped. Then the rest is sent. A fault of the connection that librdkafka gives up on, such as a topic that was
deleted, is treated as a start, too.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stock_pipeline.ingest.spool import Spool, spool_path
from stock_pipeline.ingest.topics import client_settings, ensure_topics, headers_since, say_refusal, until_reachable
from stock_pipeline.services.service import Service
from stock_pipeline.settings import Settings

log = logging.getLogger(__name__)

SPOOL_ID = "spool_id"
"""Header of a record: the spool's name and the record's id there."""

AWAY = "waiting for Kafka"

AT_ONCE = 500
"""Records read from the spool at a time."""

QUIET = 0.05
"""Seconds without a record after which the sender looks for acknowledgements."""

GATHER = 0.005
"""Seconds from the first new record to the next look into the spool: a look for each frame would hold up the feed."""

SETTLE = 0.5
"""Seconds between two times at which the spool forgets what is acknowledged."""

REFUSALS = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD)
"""Codes of what is wrong with a record, which no other attempt mends."""

LAST_WORDS = 1.0
"""Seconds for what a dead producer sent last to get from the broker's socket into the topic."""

FLUSH_PATIENCE = 5.0
"""Seconds at stop for the records that are on their way; what is not delivered then stays in the spool."""


class Sender:
    """A thread that sends what the spool holds until `close`.

    Counts, in the service: delivered, undelivered, resent. Its figures: spooled, the records that wait for Kafka.
    """

    def __init__(self, settings: Settings, service: Service) -> None:
        self._settings = settings
        self._service = service
        self._arrived = threading.Event()
        self._closing = threading.Event()
        self._unacknowledged: dict[int, None] = {}
        self._refused: list[int] = []
        self._sent = 0
        self._fault: KafkaError | None = None
        self.failure: Exception | None = None
        """What ended the thread, where it did not end by itself."""
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There are new records in the spool."""
        self._arrived.set()

    def close(self) -> None:
        """Send what is left, as far as Kafka takes it within FLUSH_PATIENCE; the rest stays in the spool."""
        self._closing.set()
        self._arrived.set()
        self._thread.join()

    def _run(self) -> None:
        spool = Spool(spool_path(self._settings), self._settings.spool_limit_mb)
        try:
            while not self._closing.is_set():
                self._begin(spool)
                self._send(spool)
        except KafkaException as error:
            if not self._closing.is_set():
                self._end(error)
        except Exception as error:  # noqa: BLE001 - kept, and raised again by produce()
            self._end(error)
        finally:
            waiting = len(spool)
            spool.close()
            if waiting:
                log.warning("%d records for Kafka stay in the spool: the next producer sends them", waiting)

    def _end(self, error: Exception) -> None:
        self.failure = error
        self._service.stop.set()

    def _begin(self, spool: Spool) -> None:
        """Wait for Kafka, and drop what it has already."""
        self._service.state = AWAY
        topics = spool.topics()
        ensure_topics(self._settings, patience=None, stop=self._closing, also=topics)
        self._sent, self._fault = 0, None
        oldest = spool.oldest_ms()
        if oldest is not None:
            self._drop_delivered(spool, topics, oldest)
        if self._service.state == AWAY:
            self._service.state = "running"

    def _drop_delivered(self, spool: Spool, topics: list[str], oldest: int) -> None:
        self._closing.wait(LAST_WORDS)
        found: list[int] = []
        for attempt in until_reachable(self._settings, stop=self._closing):
            with attempt:
                found = [number for topic in topics for number in self._numbers_in(topic, spool, oldest)]
        spool.drop(found)
        left = len(spool)
        self._service.counts["resent"] += left
        log.info("%d records of the spool were in Kafka already, %d are sent", len(found), left)

    def _numbers_in(self, topic: str, spool: Spool, since_ms: int) -> Iterator[int]:
        """Ids of the spool's records that a topic holds."""
        for headers in headers_since(self._settings, topic, since_ms):
            name = headers.get(SPOOL_ID)
            owner, _, number = name.decode().rpartition("-") if isinstance(name, bytes) else ("", "", "")
            if owner == spool.name:
                yield int(number)

    def _send(self, spool: Spool) -> None:
        """Send until closed or until librdkafka gives up."""
        producer = self._producer()
        settled = time.monotonic()
        while self._fault is None and not self._closing.is_set():
            self._arrived.clear()
            if not self._send_next(spool, producer):
                self._arrived.wait(QUIET)
                self._closing.wait(GATHER)
            producer.poll(0)
            if time.monotonic() - settled > SETTLE:
                self._settle(spool)
                settled = time.monotonic()
        if self._fault is None:
            while self._send_next(spool, producer):
                producer.poll(0)
            producer.flush(FLUSH_PATIENCE)
        else:
            log.error("Kafka's client gave up and is started again: %s", self._fault)
        self._settle(spool)
        # Whatever comes of it now is of a connection that does not count any more.
        self._unacknowledged = {}
        producer.purge()

    def _send_next(self, spool: Spool, producer: Producer) -> int:
        """Hand the next records to librdkafka, as many as it takes; gives how many."""
        count = 0
        for number, record in spool.after(self._sent, AT_ONCE):
            headers = {**record.headers, SPOOL_ID: f"{spool.name}-{number}"}
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    timestamp=record.received_ms,
                    # A reason may quote what is no text.
                    headers={name: text.encode(errors="backslashreplace") for name, text in headers.items()},
                    on_delivery=partial(self._on_delivery, number, self._unacknowledged),
                )
            except BufferError:
                producer.poll(0.1)
                break
            except KafkaException as error:
                [fault] = error.args
                if not _is_refused(fault):
                    self._fault = fault
                    break
                self._lose(number, record.topic, fault)
            else:
                self._unacknowledged[number] = None
            self._sent = number
            count += 1
        return count

    def _settle(self, spool: Spool) -> None:
        """Forget what is acknowledged, up to the first record that is not, and what is refused."""
        try:
            spool.drop(self._refused)
            self._refused.clear()
            spool.drop_below(next(iter(self._unacknowledged), self._sent + 1))
        except sqlite3.OperationalError as error:
            log.warning("the spool cannot forget what Kafka has, tried again later: %s", error)
        self._service.figures["spooled"] = len(spool)

    def _producer(self) -> Producer:
        return Producer(
            {
                **client_settings(self._settings),
                "client.id": "stock-pipeline-producer",
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 1,
                "compression.type": "lz4",
                # The default gives up after five minutes without a broker.
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": 20_000,
                "queue.buffering.max.kbytes": 65_536,
                "error_cb": self._on_error,
            }
        )

    def _on_delivery(self, number: int, unacknowledged: dict[int, None], error: KafkaError | None, m: Message) -> None:
        if unacknowledged is not self._unacknowledged:
            return
        if error is not None and not _is_refused(error):
            self._fault = self._fault or error
            return
        del unacknowledged[number]
        if error is not None:
            self._lose(number, m.topic(), error)
            return
        self._service.state = "running"
        self._service.counts["delivered"] += 1
        partition, offset = m.partition(), m.offset()
        if m.topic() == self._settings.kafka_topic and partition is not None and offset is not None:
            self._service.offsets[partition] = offset + 1

    def _lose(self, number: int, topic: str | None, error: KafkaError) -> None:
        self._service.counts["undelivered"] += 1
        self._refused.append(number)
        log.error("Kafka refuses record %d for %s, which is lost: %s", number, topic, error)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fault = self._fault or error
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._service.state = AWAY
            log.warning(
                "Kafka at %s (kafka_bootstrap_servers) cannot be reached: trades are kept in the spool",
                self._settings.kafka_bootstrap_servers,
            )
        else:
            say_refusal(error)


def _is_refused(error: KafkaError) -> bool:
    """Whether Kafka will never take the record."""
    return error.code() in REFUSALS
