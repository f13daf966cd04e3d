"""Where a stream begins: at its checkpoint, else where stream_offset says that it had come to, else at the earliest."""

import logging
import shutil
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import psycopg

from spark.topic import offsets_json
from stock_pipeline.database import until_available
from stock_pipeline.ingest.topics import offset_ranges, offset_received_since, received_at, topic_id
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import fetch_value, load_sql

log = logging.getLogger(__name__)

CLOCKS_DIFFER = 10.0
"""Seconds. A machine that has lost what its disk did not have yet takes longer to be back."""


def checkpoint_folder(settings: Settings, stream: str) -> Path:
    return settings.home / "checkpoints" / stream


def starting_offsets(settings: Settings, stream: str, replay_seconds: float = 0) -> str:
    """What a stream without a checkpoint is to begin with: JSON of offsets, or `earliest`.

    A checkpoint that the topic cannot continue any more is dropped, and what was missed is recorded in feed_gap.

    Args:
        replay_seconds: how much of what was committed has to be read again, to build up what the checkpoint held.
    """
    topic = topic_id(settings)
    known = committed_offsets(settings, stream, topic)
    ranges = offset_ranges(settings)
    if not known:
        since = _committed_at(settings, "queries/older_topic_until.sql", stream, topic)
        if since is not None:
            oldest = min(_first_received(settings, ranges), default=time.time())
            _note_gap(settings, stream, topic, known, "other topic", since, oldest)
            drop_checkpoint(settings, stream, "the topic is another one than it was written for; see feed_gap")
        return "earliest"
    since = _committed_at(settings, "queries/last_commit.sql", stream, topic)
    assert since is not None, "it has offsets"
    known |= _take_back(settings, stream, topic, known, ranges, since)
    expired = {p: (first, end) for p, (first, end) in ranges.items() if known.get(p, first) < first}
    if expired:
        oldest = max(_first_received(settings, expired))
        _note_gap(settings, stream, topic, known, "expired in Kafka", since, oldest)
        drop_checkpoint(
            settings, stream, f"Kafka no longer holds what follows it in partitions {list(expired)}; see feed_gap"
        )
        return "earliest"
    begin = {partition: known.get(partition, first) for partition, (first, _) in ranges.items()}
    if replay_seconds:
        begin = {
            partition: _earlier(settings, partition, offset, replay_seconds)
            if offset > ranges[partition][0]
            else offset
            for partition, offset in begin.items()
        }
    if not (checkpoint_folder(settings, stream) / "offsets").exists():
        log.info("%s: no checkpoint, going on from %s", stream, begin)
    return offsets_json(settings, begin)


def drop_checkpoint(settings: Settings, stream: str, reason: str) -> None:
    """Forget a checkpoint that Spark could not go on from, or would go on from at a wrong place."""
    log.warning("%s: going on without its checkpoint: %s", stream, reason)
    shutil.rmtree(checkpoint_folder(settings, stream), ignore_errors=True)


def _take_back(
    settings: Settings,
    stream: str,
    topic: str,
    known: Mapping[int, int],
    ranges: Mapping[int, tuple[int, int]],
    since: float,
) -> dict[int, int]:
    """Where to go on in partitions whose end Kafka has lost, as it can with its machine: at what came since.

    Such a partition ends before what was committed of it, or what is there now came later than that was committed: by
    more than clocks differ, and not in the future, for then it is a clock that was wrong.

    Args:
        since: when the stream last committed anything, UNIX seconds.
    """
    lost = {
        partition: min(offset, offset_received_since(settings, partition, since))
        for partition, offset in known.items()
        if partition in ranges and offset > ranges[partition][0]
        if offset > ranges[partition][1]
        or since + CLOCKS_DIFFER < received_at(settings, partition, offset - 1) <= time.time()
    }
    if lost:
        ends = {partition: (offset, ranges[partition][1]) for partition, offset in lost.items()}
        ended = min(time.time(), max(_first_received(settings, ends)))
        _note_gap(settings, stream, topic, known, "expired in Kafka", since, ended)
        for attempt in until_available(settings):
            with attempt, psycopg.connect(settings.conninfo("writer")) as connection:
                places = {"partitions": list(lost), "next_offsets": list(lost.values())}
                values = {"stream": stream, "topic_id": topic, **places}
                connection.execute(load_sql("queries/take_back_stream_offset.sql"), values)
        drop_checkpoint(settings, stream, f"Kafka has lost the end of partitions {list(lost)}; see feed_gap")
    return lost


def _committed_at(settings: Settings, statement: str, stream: str, topic: str) -> float | None:
    """When the stream last committed anything of this topic or of others, as the statement says; UNIX seconds."""
    committed: datetime | None = None
    for attempt in until_available(settings):
        with attempt, psycopg.connect(settings.conninfo("writer")) as connection:
            committed = fetch_value(connection, statement, {"stream": stream, "topic_id": topic})
    return None if committed is None else committed.timestamp()


def _first_received(settings: Settings, ranges: Mapping[int, tuple[int, int]]) -> list[float]:
    """When the first record that each partition holds was received, UNIX seconds; now where it holds none."""
    return [
        received_at(settings, partition, first) if first < end else time.time()
        for partition, (first, end) in ranges.items()
    ]


def _note_gap(
    settings: Settings, stream: str, topic: str, known: Mapping[int, int], cause: str, started: float, ended: float
) -> None:
    """Record that trades are missing since the stream's last commit."""
    # The same gap, met at a second start before anything is committed, has the same id.
    gap_id = uuid5(NAMESPACE_OID, f"{stream} {topic} {cause} {sorted(known.items())}")
    gap: dict[str, object] = {"id": gap_id, "symbol": None, "started": started, "ended": max(started, ended)}
    gap |= {"cause": cause, "detail": stream}
    for attempt in until_available(settings):
        with attempt, psycopg.connect(settings.conninfo("writer")) as connection:
            connection.execute(load_sql("queries/upsert_feed_gap.sql"), gap)


def _earlier(settings: Settings, partition: int, offset: int, seconds: float) -> int:
    """The first offset received in the minute that lies `seconds` before the last record below `offset`."""
    since = received_at(settings, partition, offset - 1) - seconds
    return offset_received_since(settings, partition, since // 60 * 60)


def committed_offsets(settings: Settings, stream: str, topic: str) -> dict[int, int]:
    """Next offset of each partition from stream_offset."""
    committed: dict[int, int] = {}
    for attempt in until_available(settings):
        with attempt, psycopg.connect(settings.conninfo("writer")) as connection:
            values = {"stream": stream, "topic_id": topic}
            committed = dict(connection.execute(load_sql("queries/select_stream_offset.sql"), values).fetchall())
    return committed
