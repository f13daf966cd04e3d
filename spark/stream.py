"""Running one stream as a service: start, follow, note what is committed, go on when a server is back."""

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from statistics import quantiles
from typing import Any

import psycopg
from confluent_kafka import KafkaException
from py4j.protocol import Py4JJavaError
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from spark.offsets import checkpoint_folder, drop_checkpoint
from spark.session import create_session, local_folder
from stock_pipeline.database import until_available
from stock_pipeline.errors import SettingsError, first_line
from stock_pipeline.ingest.topics import ensure_topics, topic_id, until_reachable
from stock_pipeline.services.service import SUMMARY, Service, ServiceName
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import load_sql

log = logging.getLogger(__name__)

TRIGGER = "100 milliseconds"

QUIET = 20.0
"""Seconds without a batch after which the log says what a query waits for; an idle one reports every 10 s."""

TIDY = 5.0
"""Seconds between two calls of a stream's `tidy`."""

LAST_BATCH = 5.0
"""Seconds that a batch may still take when the stream is told to stop."""

MAX_RESTARTS = 3
"""How often in a row a query is started again, without having moved, before the process gives up."""

OBSERVED = "written"
"""Name of what a query's progress tells of its sink."""


@dataclass(frozen=True)
class Stream:
    """One stream. `start(spark, settings, available_now)` begins the query."""

    name: ServiceName
    start: Callable[[SparkSession, Settings, bool], StreamingQuery]
    tidy: Callable[[Settings], Counter[str]] | None = None
    """What else the service does, every few seconds beside the query; gives counts of it. There may be more to do as
    long as it has compared something or made it final."""


def start_query(
    written: DataFrame,
    settings: Settings,
    name: str,
    available_now: bool,
    mode: str = "append",
) -> StreamingQuery:
    """Begin a query that has each batch written, at least once, and tells of it in its progress.

    Args:
        written: what a sink returns, rows of spark.sinks.WRITTEN. The sink is a step of the query like those before it,
            and what Spark calls the sink takes its rows and does nothing with them: to call Python back with each batch
            would mean to plan and run a second query for it.
    """
    sums = (F.sum("rows").alias("rows"), F.sum("rejected").alias("rejected"))
    reported = written.observe(OBSERVED, *sums, F.flatten(F.collect_list("latencies")).alias("latencies"))
    writer = reported.writeStream.format("noop").queryName(name).outputMode(mode)
    writer = writer.option("checkpointLocation", checkpoint_folder(settings, name).as_uri())
    writer = writer.trigger(availableNow=True) if available_now else writer.trigger(processingTime=TRIGGER)
    return writer.start()


@dataclass
class Window:
    """What happened since the last row of stream_stats."""

    began: float = field(default_factory=time.monotonic)
    records: int = 0
    rows: int = 0
    dropped_late: int = 0
    batches: int = 0
    batch_seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


Batch = tuple[str, int, str]


def _batch(progress: Mapping[str, Any]) -> Batch:
    """What tells a report of Spark from all others: a number comes again with another query, and several times with one
    that is idle, and a time when the clock is set back."""
    return progress["runId"], progress["batchId"], progress["timestamp"]


class Progress:
    """Keeps account of a stream: in the service's heartbeat, in stream_offset and in stream_stats.

    `record` is called about once a second; Spark keeps the progress of the last 100 batches until then.
    """

    def __init__(self, service: Service, settings: Settings, topic: str) -> None:
        self._service = service
        self._settings = settings
        self._topic = topic
        self._seen: Batch | None = None
        self._window = Window()
        self._written: dict[int, int] = {}
        self._limit: float | None = None
        self._written_complete = 0.0
        self._complete_until = 0.0
        self._ended_at = time.time()
        self._lag_records = 0
        self._newest_receipt = time.time()
        self._moved = time.monotonic()
        self._connection: psycopg.Connection | None = None

    def follow(self, topic: str) -> None:
        """Write down offsets of this topic from now on: one that was deleted and created again has another id."""
        if topic != self._topic:
            self._topic, self._written = topic, {}
            self._service.offsets.clear()

    def limit_to(self, began: float | None) -> None:
        """Say when a query began that takes in what Kafka held then; None: one that goes on."""
        self._limit = began

    def complete(self) -> None:
        """Note that such a query has taken in all of it."""
        if self._limit is not None:
            self._complete_until = max(self._complete_until, self._limit)
            self._write_offsets()

    def record(self, query: StreamingQuery, final: bool = False) -> None:
        """Note the batches that ended since the last call; write the statistics when they are due, or at the end."""
        for progress in self._news(query):
            self._seen = _batch(progress)
            self._moved = time.monotonic()
            self._take_in(progress)
        if time.monotonic() - self._moved > QUIET:
            log.warning("%s: no batch for %.0f s: %s", self._service.name, QUIET, query.status["message"])
            self._moved = time.monotonic()
        if (self._service.offsets, self._complete_until) != (self._written, self._written_complete):
            self._write_offsets()
        if final or time.monotonic() - self._window.began >= SUMMARY:
            self._write_statistics()

    def _news(self, query: StreamingQuery) -> list[dict[str, Any]]:
        """What Spark tells of the batches since the last call, the oldest first."""
        news: list[dict[str, Any]] = []
        # PySpark's own `recentProgress` would fetch and parse all 100 that Spark keeps each time.
        for batch in reversed(query._jsq.recentProgress()):
            progress = json.loads(batch.json())
            if _batch(progress) == self._seen:
                break
            news.insert(0, progress)
        return news

    def _take_in(self, progress: dict[str, Any]) -> None:
        source, window, service = progress["sources"][0], self._window, self._service
        ends = (source["endOffset"] or {}).get(self._settings.kafka_topic, {})
        service.offsets.update({int(partition): offset for partition, offset in ends.items()})
        latest = (source.get("latestOffset") or {}).get(self._settings.kafka_topic, {})
        began = datetime.fromisoformat(progress["timestamp"]).timestamp()
        self._ended_at = began + progress["durationMs"].get("triggerExecution", 0) / 1000
        if latest and all(ends.get(partition) == end for partition, end in latest.items()):
            self._complete_until = began if self._limit is None else min(began, self._limit)
        self._lag_records = sum(max(0, end - ends.get(partition, 0)) for partition, end in latest.items())
        late = sum(operator["numRowsDroppedByWatermark"] for operator in progress["stateOperators"])
        if progress["numInputRows"]:
            window.records += progress["numInputRows"]
            window.batches += 1
            window.batch_seconds += progress["durationMs"]["triggerExecution"] / 1000
            window.dropped_late += late
            service.counts["records"] += progress["numInputRows"]
            service.counts["batches"] += 1
            service.counts["dropped_late"] += late
            self._take_in_written(progress["observedMetrics"][OBSERVED])

    def _take_in_written(self, written: dict[str, Any]) -> None:
        """Take in what the sink wrote: rows of spark.sinks.WRITTEN, summed up."""
        rows, latencies = written["rows"] or 0, written["latencies"]
        self._window.rows += rows
        self._window.latencies += latencies
        self._service.counts["rows"] += rows
        self._service.counts["dead_letters"] += written["rejected"] or 0
        if latencies:
            self._newest_receipt = self._ended_at - min(latencies)

    def _write_offsets(self) -> None:
        offsets, complete_until = dict(self._service.offsets), self._complete_until
        values = {
            "stream": self._service.name,
            "topic_id": self._topic,
            "partitions": list(offsets),
            "next_offsets": list(offsets.values()),
            "ended_at": self._ended_at,
            "complete_until": complete_until,
        }
        if self._execute("queries/upsert_stream_offset.sql", values):
            self._written, self._written_complete = offsets, complete_until

    def _write_statistics(self) -> None:
        window, self._window = self._window, Window()
        seconds = self._window.began - window.began
        percentiles = quantiles(window.latencies, n=100, method="inclusive") if len(window.latencies) > 1 else None
        figures = {
            "records": window.records,
            "rows_per_second": window.rows / seconds,
            "lag_records": self._lag_records,
            "lag_seconds": time.time() - self._newest_receipt if self._lag_records else 0.0,
            "latency_p50": percentiles[49] if percentiles else None,
            "latency_p99": percentiles[98] if percentiles else None,
            "batch_seconds": window.batch_seconds / window.batches if window.batches else None,
            "dropped_late": window.dropped_late,
        }
        self._service.figures = {name: round(value, 3) for name, value in figures.items() if value is not None}
        self._execute("queries/insert_stream_stats.sql", {"stream": self._service.name, **figures})

    def _execute(self, statement: str, values: dict[str, Any]) -> bool:
        """Whether it worked: while the database is away, the next call writes what is newest then."""
        try:
            if self._connection is None or self._connection.closed:
                # Kept: a new one takes a hundredth of a processor each second.
                self._connection = psycopg.connect(self._settings.conninfo("writer"), autocommit=True)
            self._connection.execute(load_sql(statement), values)
        except psycopg.OperationalError as error:
            log.warning("%s: %s left out, the database is away: %s", self._service.name, statement, first_line(error))
            return False
        return True

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()


def run_stream(stream: Stream, settings: Settings, available_now: bool = False) -> None:
    """Run a stream until SIGTERM or SIGINT, or until all that the topic holds now is committed.

    A broker or database that is away is waited for.

    Raises:
        AlreadyRunning: the stream runs in this home.
        SettingsError: the tables are missing.
        StreamingQueryException: the query failed, though broker and database are there.
    """
    with Service(stream.name, settings) as service:
        topic = _wait_for_servers(settings, service)
        if topic is None:
            return
        shutil.rmtree(local_folder(settings, stream.name), ignore_errors=True)
        spark = create_session(settings, stream.name)
        spark.sparkContext.setLogLevel("ERROR")
        service.links["spark_ui"] = spark.sparkContext.uiWebUrl or ""
        try:
            with closing(Progress(service, settings, topic)) as progress:
                _keep_running(stream, spark, settings, service, progress, available_now)
        finally:
            spark.stop()


def _wait_for_servers(settings: Settings, service: Service) -> str | None:
    """The topic's id once broker and database answer; None where the service was told to stop before."""
    service.state = "waiting for servers"
    try:
        ensure_topics(settings, patience=None, stop=service.stop)
        for attempt in until_available(settings, stop=service.stop):
            with attempt, psycopg.connect(settings.conninfo("writer")) as connection:
                connection.execute("SELECT FROM tick_data, ohlcv_data, stream_offset, stream_stats LIMIT 0")
        for attempt in until_reachable(settings, stop=service.stop):
            with attempt:
                return topic_id(settings)
    except psycopg.errors.UndefinedTable as error:
        raise SettingsError(f"db_url: {settings.db_url} lacks tables: run `stock-pipeline init-db`") from error
    except (KafkaException, psycopg.OperationalError):
        if not service.stop.is_set():
            raise
    return None


def _keep_running(
    stream: Stream, spark: SparkSession, settings: Settings, service: Service, progress: Progress, available_now: bool
) -> None:
    failures, reached = 0, dict(service.offsets)
    while not service.stop.is_set():
        try:
            progress.limit_to(time.time() if available_now else None)
            query = stream.start(spark, settings, available_now)
            _follow(query, stream, settings, service, progress)
            if available_now and not service.stop.is_set():
                progress.complete()
                _tidy_up(stream, settings, service)
            return
        except (StreamingQueryException, Py4JJavaError, KafkaException) as error:
            failures = failures + 1 if service.offsets == reached else 1
            reached = dict(service.offsets)
            if failures > MAX_RESTARTS:
                raise
            if failures == MAX_RESTARTS and not service.offsets:
                # Perhaps damaged: without it the stream goes on from stream_offset, and doubles nothing by that.
                drop_checkpoint(settings, stream.name, f"no batch succeeded with it: {first_line(error)}")
            log.warning("%s: the query failed (%d) and is started again: %s", stream.name, failures, first_line(error))
            topic = _wait_for_servers(settings, service)
            if topic is None:
                return
            progress.follow(topic)
            service.stop.wait(failures)


def _follow(query: StreamingQuery, stream: Stream, settings: Settings, service: Service, progress: Progress) -> None:
    """Until the query ends, or the service is told to stop."""
    service.state = "running"
    tidied = time.monotonic()
    try:
        while not query.awaitTermination(timeout=1):
            progress.record(query)
            if stream.tidy is not None and time.monotonic() - tidied > TIDY:
                service.counts.update(stream.tidy(settings))
                tidied = time.monotonic()
            if service.stop.is_set():
                _stop_between_batches(query)
    finally:
        progress.record(query, final=True)


def _tidy_up(stream: Stream, settings: Settings, service: Service) -> None:
    """Let `tidy` do all that there is to do."""
    if stream.tidy is None:
        return
    while True:
        counts = stream.tidy(settings)
        service.counts.update(counts)
        if not counts["compared"] and not counts["final"]:
            return


def _stop_between_batches(query: StreamingQuery) -> None:
    """Let the running batch end: the next start would have to do it again."""
    deadline = time.monotonic() + LAST_BATCH
    while query.status["isTriggerActive"] and time.monotonic() < deadline:
        time.sleep(0.01)
    query.stop()
