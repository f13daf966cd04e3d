"""The tables that bars depend on beside their trades: market sessions and trade conditions."""

from datetime import timedelta

from dagster import AssetSpec, AutomationCondition, FreshnessPolicy, MaterializeResult, asset

from stock_pipeline.defs.applied_sql import applied_sql, when_missing_or
from stock_pipeline.defs.tables import table_metadata
from stock_pipeline.resources.timescale import TimescaleResource

trade_condition = applied_sql(
    "trade_condition",
    ["schema/040_trade_condition.sql"],
    group="reference",
    kinds={"postgres", "table"},
    deps=[],
    description=(
        "What a trade with a condition code may do to a bar, from the consolidated tapes' specifications. Grain: a "
        "code. Key: code. Written from its file whenever that changes; the streams read it when they start."
    ),
)


instrument = AssetSpec(
    "instrument",
    deps=["stock_ticks"],
    group_name="reference",
    kinds={"postgres", "table"},
    description=(
        "What is traded: its class, its calendar and its minutes of trading in a year. Grain: a symbol. Key: symbol. "
        "Written by the tick stream with the first trade of a symbol; late trades change nothing."
    ),
    metadata=table_metadata("instrument", lineage={"symbol": [("stock_ticks", "data.s")]}),
)


@asset(
    group_name="reference",
    automation_condition=when_missing_or(AutomationCondition.cron_tick_passed("0 5 * * 0")),
    freshness_policy=FreshnessPolicy.time_window(fail_window=timedelta(days=9)),
    kinds={"python", "postgres", "table"},
    description=(
        "Regular sessions of XNYS, 24/5 and 24/7 from 1990 to a year ahead, from exchange_calendars. Grain: a session. "
        "Key: (calendar, session). Written anew each week; the streams read it when they start."
    ),
    metadata=table_metadata("market_session"),
)
def market_session(timescale: TimescaleResource) -> MaterializeResult[None]:
    # A large import, which the loading of definitions does without.
    from stock_pipeline.market.sessions import fill_market_sessions

    with timescale.connect("writer") as connection:
        return MaterializeResult(metadata={"dagster/row_count": fill_market_sessions(connection)})
