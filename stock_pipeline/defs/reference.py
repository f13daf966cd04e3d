"""The tables that bars depend on beside their trades: market sessions and trade conditions."""

from dagster import AssetSpec, DefaultScheduleStatus, MaterializeResult, ScheduleDefinition, asset, define_asset_job

from stock_pipeline.defs.tables import table_schema
from stock_pipeline.resources.timescale import TimescaleResource

trade_condition = AssetSpec(
    "trade_condition",
    group_name="reference",
    kinds={"postgres", "table"},
    description=(
        "What a trade with a condition code may do to a bar, from the consolidated tapes' specifications. Grain: a "
        "code. Written by `stock-pipeline init-db`."
    ),
    metadata={
        "dagster/column_schema": table_schema("trade_condition"),
        "dagster/table_name": "stocks.public.trade_condition",
    },
)


@asset(
    group_name="reference",
    kinds={"python", "postgres", "table"},
    description=(
        "Regular sessions of XNYS, 24/5 and 24/7 from 1990 to a year ahead, from exchange_calendars. Grain: a session. "
        "Key: (calendar, session). Written anew each week; the streams read it when they start."
    ),
    metadata={
        "dagster/column_schema": table_schema("market_session"),
        "dagster/table_name": "stocks.public.market_session",
    },
)
def market_session(timescale: TimescaleResource) -> MaterializeResult[None]:
    # A large import, which the loading of definitions does without.
    from stock_pipeline.market.sessions import fill_market_sessions

    with timescale.connect("writer") as connection:
        return MaterializeResult(metadata={"dagster/row_count": fill_market_sessions(connection)})


refresh_market_sessions = ScheduleDefinition(
    job=define_asset_job("market_sessions", selection=[market_session]),
    cron_schedule="0 5 * * 0",
    default_status=DefaultScheduleStatus.RUNNING,
)
