"""The tick stream: every trade of the topic into tick_data, everything else into the dead-letter topic."""

import sys

from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from spark.offsets import starting_offsets
from spark.sinks import write_ticks
from spark.stream import Stream, run_stream, start_query
from spark.topic import read_topic
from stock_pipeline.services.service import ServiceName
from stock_pipeline.settings import Settings, load_settings

NAME: ServiceName = "tick-stream"


def start(spark: SparkSession, settings: Settings, available_now: bool = False) -> StreamingQuery:
    """Begin the query.

    Args:
        available_now: end when all that the topic holds now is committed.
    """
    records = read_topic(spark, settings, starting_offsets(settings, NAME))
    return start_query(write_ticks(records, settings.with_passwords()), settings, NAME, available_now)


TICK_STREAM = Stream(NAME, start)


def main() -> None:
    """For spark-submit; `--available-now` is understood."""
    run_stream(TICK_STREAM, load_settings(), "--available-now" in sys.argv[1:])


if __name__ == "__main__":
    main()
