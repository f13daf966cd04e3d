"""The ohlcv stream: bars of one minute into ohlcv_data, updated with each batch."""

import sys

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from spark.eligibility import Eligibility, load_eligibility
from spark.offsets import starting_offsets
from spark.sinks import write_bars
from spark.stream import Report, Stream, run_stream, start_query
from spark.tick_streaming import ignore
from spark.trades import explode_trades, read_topic
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


def build_bars(trades: DataFrame, eligibility: Eligibility) -> DataFrame:
    """Bars of one minute: the same rules as the SQL function bars_from_ticks.

    Args:
        trades: symbol, price, event_time, volume, seq, conditions, received_at, as spark.trades gives them.
        eligibility: what each trade may update.

    Returns:
        timestamp (start of the minute), symbol, open, high, low, close, volume, trades, ticks, vwap (null at
        volume 0), newest_receipt. Open is the first and close the last trade by (event_time, seq) that updates last;
        a minute without one has no bar.
    """
    # Aggregates leave nulls out: a price or an order that is null has no say.
    order = F.when(F.col("updates_last"), F.struct("event_time", "seq"))
    price = F.when(F.col("updates_high_low"), F.col("price"))
    volume = F.when(F.col("updates_volume"), F.col("volume")).otherwise(0.0)
    return (
        eligibility.judge(trades)
        .groupBy(F.window("event_time", "1 minute"), "symbol")
        .agg(
            F.min_by("price", order).alias("open"),
            F.max(price).alias("high"),
            F.min(price).alias("low"),
            F.max_by("price", order).alias("close"),
            F.sum(volume).alias("volume"),
            F.count_if(volume > 0).alias("trades"),
            F.count("*").alias("ticks"),
            F.sum(F.col("price") * volume).alias("notional"),
            F.max("received_at").alias("newest_receipt"),
        )
        .where("open IS NOT NULL")
        .select(
            F.col("window.start").alias("timestamp"),
            "symbol",
            "open",
            "high",
            "low",
            "close",
            "volume",
            "trades",
            "ticks",
            F.when(F.col("volume") > 0, F.col("notional") / F.col("volume")).alias("vwap"),
            "newest_receipt",
        )
    )


def start(
    spark: SparkSession, settings: Settings, available_now: bool = False, report: Report = ignore
) -> StreamingQuery:
    """Begin the query.

    Args:
        available_now: end when all that the topic holds now is committed.
        report: gets what each batch wrote.
    """
    portable = settings.with_passwords()
    records = read_topic(spark, settings, starting_offsets(settings, NAME, replay_seconds=FINAL_AFTER))
    trades = explode_trades(records, settings).where("reason IS NULL")
    bars = build_bars(trades.withWatermark("event_time", LATENESS), load_eligibility(settings))

    def write(batch: DataFrame, _batch_id: int) -> None:
        report(write_bars(batch, portable))

    return start_query(bars, settings, NAME, write, available_now, mode="update")


OHLCV_STREAM = Stream(NAME, start, tidy=settle_bars)


def main() -> None:
    """For spark-submit; `--available-now` is understood."""
    run_stream(OHLCV_STREAM, load_settings(), "--available-now" in sys.argv[1:])


if __name__ == "__main__":
    main()
