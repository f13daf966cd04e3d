"""The ohlcv stream: bars of one minute into ohlcv_data, updated with each batch."""

import sys
from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from spark.bars import PARTS, make_parts, merge_parts
from spark.eligibility import Eligibility, load_eligibility
from spark.offsets import starting_offsets
from spark.sinks import write_bars
from spark.stream import Stream, run_stream, start_query
from spark.topic import RECORD, read_topic
from spark.trades import Choice, all_of, read_trades
from stock_pipeline.bars.restatement import settle_bars
from stock_pipeline.services.service import ServiceName
from stock_pipeline.settings import Settings, load_settings

NAME: ServiceName = "ohlcv-stream"

LATENESS = "24 hours"
"""How far behind the newest trade another may be and still find its bar's state.

Partitions are read side by side, and after an outage those of quiet symbols are ahead of others by hours. A bar's
state is a few hundred bytes, so a day of them costs little.
"""

FINAL_AFTER = 15 * 60
"""Seconds of the topic that are read again where the checkpoint is lost, to build bars that may still change."""


def build_bars(records: DataFrame, rules: Eligibility, choose: Choice = all_of) -> DataFrame:
    """Bars, as `merge_parts` gives them, of the chosen trades in Kafka records; of a stream those that change."""

    def make(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from make_parts(choose(read_trades(batch).trades), rules).to_batches()

    parts = records.select(*RECORD).mapInArrow(make, PARTS)
    return merge_parts(parts.withWatermark("timestamp", LATENESS))


def start(spark: SparkSession, settings: Settings, available_now: bool = False) -> StreamingQuery:
    """Begin the query.

    Args:
        available_now: end when all that the topic holds now is committed.
    """
    records = read_topic(spark, settings, starting_offsets(settings, NAME, replay_seconds=FINAL_AFTER))
    bars = build_bars(records, load_eligibility(settings))
    written = write_bars(bars, settings.with_passwords())
    return start_query(written, settings, NAME, available_now, mode="update")


OHLCV_STREAM = Stream(NAME, start, tidy=settle_bars)


def main() -> None:
    """For spark-submit; `--available-now` is understood."""
    run_stream(OHLCV_STREAM, load_settings(), "--available-now" in sys.argv[1:])


if __name__ == "__main__":
    main()
