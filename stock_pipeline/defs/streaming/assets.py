"""The tables that the streams write, and what the streams say of them."""

from dagster import AssetSpec

from stock_pipeline.defs.tables import HOURS, table_schema

tick_data = AssetSpec(
    "tick_data",
    deps=["stock_ticks"],
    group_name="market_data",
    kinds={"spark", "postgres", "table"},
    partitions_def=HOURS,
    description=(
        "Every trade, once. Grain: a trade. Key: (symbol, event_time, seq); seq is the trade's place in the Kafka "
        "log. Late trades are added whenever they come. Fresh within seconds of the trade."
    ),
    metadata={"dagster/column_schema": table_schema("tick_data"), "dagster/table_name": "stocks.public.tick_data"},
)

ohlcv_data = AssetSpec(
    "ohlcv_data",
    deps=["stock_ticks"],
    group_name="market_data",
    kinds={"spark", "postgres", "table"},
    partitions_def=HOURS,
    description=(
        "Bars of one minute. Grain: a minute of a symbol. Key: (timestamp, symbol). Open is the first, close the last "
        "trade by (event_time, seq). A late trade of the last day changes its bar. Fresh within seconds of the trade."
    ),
    metadata={"dagster/column_schema": table_schema("ohlcv_data"), "dagster/table_name": "stocks.public.ohlcv_data"},
)
