"""The tables that the streams write. Materialising an hour of them builds it again from the topic."""

from collections.abc import Iterator
from datetime import timedelta

from dagster import (
    AssetExecutionContext,
    AssetSpec,
    BackfillPolicy,
    FreshnessPolicy,
    MaterializeResult,
    multi_asset,
)

from stock_pipeline.defs.tables import HOURS, Lineage, table_metadata
from stock_pipeline.resources.spark import SparkResource
from stock_pipeline.settings import load_settings

TICK_LINEAGE: Lineage = {
    "symbol": [("stock_ticks", "data.s")],
    "price": [("stock_ticks", "data.p")],
    "event_time": [("stock_ticks", "data.t")],
    "volume": [("stock_ticks", "data.v")],
    "conditions": [("stock_ticks", "data.c")],
}
"""seq and received_at come from the record's place and time in the log."""

HOURLY = FreshnessPolicy.time_window(fail_window=timedelta(minutes=95), warn_window=timedelta(minutes=65))
"""The streams report each hour when it begins, whether or not the market is open."""

RULES = [("stock_ticks", "data.c"), ("trade_condition", "code")]
"""What says which trades a bar is made of."""

BAR_LINEAGE: Lineage = {
    "timestamp": [("stock_ticks", "data.t")],
    "symbol": [("stock_ticks", "data.s")],
    "open": [("stock_ticks", "data.p"), *RULES, ("trade_condition", "updates_last")],
    "high": [("stock_ticks", "data.p"), *RULES, ("trade_condition", "updates_high_low")],
    "low": [("stock_ticks", "data.p"), *RULES, ("trade_condition", "updates_high_low")],
    "close": [("stock_ticks", "data.p"), *RULES, ("trade_condition", "updates_last")],
    "volume": [("stock_ticks", "data.v"), *RULES, ("trade_condition", "updates_volume")],
    "trades": [("stock_ticks", "data.v"), *RULES, ("trade_condition", "updates_volume")],
    "ticks": [("stock_ticks", "data")],
    "vwap": [("stock_ticks", "data.p"), ("stock_ticks", "data.v"), *RULES, ("trade_condition", "updates_volume")],
}


@multi_asset(
    name="rebuild",
    partitions_def=HOURS,
    pool="rebuild",
    backfill_policy=BackfillPolicy.single_run(),
    specs=[
        AssetSpec(
            "tick_data",
            deps=["stock_ticks"],
            group_name="market_data",
            kinds={"spark", "postgres", "table"},
            freshness_policy=HOURLY,
            description=(
                "Every trade, once. Grain: a trade. Key: (symbol, event_time, seq); seq is the trade's place in the "
                "Kafka log. Late trades are added whenever they come. Fresh within seconds of the trade. Materialise "
                "an hour to build it again from the topic."
            ),
            metadata=table_metadata("tick_data", lineage=TICK_LINEAGE),
        ),
        AssetSpec(
            "ohlcv_data",
            deps=["stock_ticks", "market_session", "trade_condition"],
            group_name="market_data",
            kinds={"spark", "postgres", "table"},
            freshness_policy=HOURLY,
            description=(
                "Bars of one minute. Grain: a minute of a symbol. Key: (timestamp, symbol). Open is the first, close "
                "the last trade by (event_time, seq) of those that trade_condition lets set them. A late trade "
                "restates its bar within a minute, however late it is; ohlcv_restatement keeps the change. Fresh "
                "within seconds of the trade. Materialise an hour to build it again from the topic."
            ),
            metadata=table_metadata("ohlcv_data", lineage=BAR_LINEAGE),
        ),
    ],
)
def market_data(context: AssetExecutionContext, spark: SparkResource) -> Iterator[MaterializeResult[None]]:
    """Builds hours of ticks and bars again from the topic, in one swap."""
    # A large import, which other runs do without.
    from spark.rebuild import rebuild

    hours = context.partition_time_window
    done = rebuild(spark.start(), load_settings(), hours.start, hours.end)
    for table, rows in {"tick_data": done.ticks, "ohlcv_data": done.bars}.items():
        # Of all the hours together, where it is more than one.
        yield MaterializeResult(asset_key=table, metadata={"rows": rows, "bars_changed": done.changed})
