"""Where a stream begins: at its checkpoint, else where stream_offset says that it had come to."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import psycopg

from spark.trades import offsets_json
from stock_pipeline.database import fetch_value, load_sql, until_available
from stock_pipeline.ingest.topics import offset_ranges, offset_received_since, received_at, topic_id
from stock_pipeline.settings import Settings

log = logging.getLogger(__name__)


def checkpoint_folder(settings: Settings, stream: str) -> Path:
    return settings.home / "checkpoints" / stream


def starting_offsets(settings: Settings, stream: str, replay_seconds: float = 0) -> str:
    """What a stream without a checkpoint is to begin with: JSON of offsets, or `earliest`.

    Args:
        replay_seconds: how much of what was committed has to be read again, to build up what the checkpoint held.
    """
    topic = topic_id(settings)
    known = committed_offsets(settings, stream, topic)
    ranges = offset_ranges(settings)
    is_lost = not (checkpoint_folder(settings, stream) / "offsets").exists()
    if not known:
        if is_lost:
            _note_gap(settings, stream, topic, "other topic", "queries/older_topic_until.sql", ranges)
        return "earliest"
    expired = [partition for partition, (first, _) in ranges.items() if known.get(partition, first) < first]
    if expired:
        log.warning(
            "%s: Kafka no longer holds what follows in partitions %s: going on at the earliest", stream, expired
        )
        if is_lost:
            _note_gap(settings, stream, topic, "expired in Kafka", "queries/last_commit.sql", ranges)
        return "earliest"
    begin = {partition: known.get(partition, first) for partition, (first, _) in ranges.items()}
    if replay_seconds:
        begin = {
            partition: _earlier(settings, partition, offset, replay_seconds)
            if offset > ranges[partition][0]
            else offset
            for partition, offset in begin.items()
        }
    if is_lost:
        log.info("%s: no checkpoint, going on from %s", stream, begin)
    return offsets_json(settings, begin)


def _note_gap(
    settings: Settings, stream: str, topic: str, cause: str, statement: str, ranges: Mapping[int, tuple[int, int]]
) -> None:
    """Record that trades are missing from the time that the statement gives to that of the oldest record there is."""
    firsts = [received_at(settings, partition, first) for partition, (first, end) in ranges.items() if first < end]
    for attempt in until_available(settings):
        with attempt, psycopg.connect(settings.conninfo("writer")) as connection:
            started = fetch_value(connection, statement, {"stream": stream, "topic_id": topic})
            if started is None:
                return
            begin = started.timestamp()
            gap = {"id": uuid4(), "symbol": None, "started": begin, "cause": cause, "detail": stream}
            gap["ended"] = max(begin, min(firsts, default=time.time()))
            connection.execute(load_sql("queries/upsert_feed_gap.sql"), gap)


def _earlier(settings: Settings, partition: int, offset: int, seconds: float) -> int:
    """The first offset received in the minute that lies `seconds` before the last record below `offset`."""
    since = received_at(settings, partition, offset - 1) - seconds
    return offset_received_since(settings, partition, since // 60 * 60)


def committed_offsets(settings: Settings, stream: str, topic: str) -> dict[int, int]:
    """Next offset of each partition from stream_offset."""
    for attempt in until_available(settings):
        with attempt, psycopg.connect(settings.conninfo("writer")) as connection:
            rows = connection.execute(
                load_sql("queries/select_stream_offset.sql"), {"stream": stream, "topic_id": topic}
            ).fetchall()
            return dict(rows)
    raise AssertionError("until_available ends only by success or error")
