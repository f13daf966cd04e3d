"""Where a stream begins: at its checkpoint, else where stream_offset says that it had come to."""

import json
import logging
from pathlib import Path

import psycopg

from stock_pipeline.database import load_sql, until_available
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
    known = committed_offsets(settings, stream, topic_id(settings))
    ranges = offset_ranges(settings)
    if not known:
        return "earliest"
    expired = [partition for partition, (first, _) in ranges.items() if known.get(partition, first) < first]
    if expired:
        log.warning(
            "%s: Kafka no longer holds what follows in partitions %s: going on at the earliest", stream, expired
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
    return json.dumps({settings.kafka_topic: {str(partition): offset for partition, offset in begin.items()}})


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
