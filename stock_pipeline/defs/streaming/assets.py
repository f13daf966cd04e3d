"""The tables that the streams write. Materialising an hour of them builds it again from the topic."""

from collections.abc import Iterator

from dagster import AssetExecutionContext, AssetSpec, BackfillPolicy, MaterializeResult, multi_asset

from spark.rebuild import rebuild
from stock_pipeline.defs.tables import HOURS, table_schema
from stock_pipeline.resources.spark import SparkResource
from stock_pipeline.settings import load_settings


@multi_asset(
    name="rebuild",
    partitions_def=HOURS,
    backfill_policy=BackfillPolicy.single_run(),
    specs=[
        AssetSpec(
            "tick_data",
            deps=["stock_ticks"],
            group_name="market_data",
            kinds={"spark", "postgres", "table"},
            description=(
                "Every trade, once. Grain: a trade. Key: (symbol, event_time, seq); seq is the trade's place in the "
                "Kafka log. Late trades are added whenever they come. Fresh within seconds of the trade. Materialise "
                "an hour to build it again from the topic."
            ),
            metadata={
                "dagster/column_schema": table_schema("tick_data"),
                "dagster/table_name": "stocks.public.tick_data",
            },
        ),
        AssetSpec(
            "ohlcv_data",
            deps=["stock_ticks", "market_session", "trade_condition"],
            group_name="market_data",
            kinds={"spark", "postgres", "table"},
            description=(
                "Bars of one minute. Grain: a minute of a symbol. Key: (timestamp, symbol). Open is the first, close "
                "the last trade by (event_time, seq) of those that trade_condition lets set them. A late trade "
                "restates its bar within a minute, however late it is; ohlcv_restatement keeps the change. Fresh "
                "within seconds of the trade. Materialise an hour to build it again from the topic."
            ),
            metadata={
                "dagster/column_schema": table_schema("ohlcv_data"),
                "dagster/table_name": "stocks.public.ohlcv_data",
            },
        ),
    ],
)
def market_data(context: AssetExecutionContext, spark: SparkResource) -> Iterator[MaterializeResult[None]]:
    """Builds hours of ticks and bars again from the topic, in one swap."""
    hours = context.partition_time_window
    done = rebuild(spark.start(), load_settings(), hours.start, hours.end)
    for table, rows in {"tick_data": done.ticks, "ohlcv_data": done.bars}.items():
        # Of all the hours together, where it is more than one.
        yield MaterializeResult(asset_key=table, metadata={"rows": rows, "bars_changed": done.changed})
