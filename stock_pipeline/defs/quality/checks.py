"""What is checked: of the feed and the streams every 20 minutes, of the tables and views every two hours."""

from datetime import UTC, datetime, timedelta
from functools import partial

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetSelection,
    DagsterRunStatus,
    DefaultScheduleStatus,
    RunRequest,
    RunsFilter,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    asset_check,
    define_asset_job,
    schedule,
)
from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG

from stock_pipeline.bars.rollups import ROLLUPS
from stock_pipeline.defs.dashboards.assets import CHECKS as CHECKS_OF_DASHBOARDS
from stock_pipeline.defs.quality.batches import (
    ERROR,
    SAMPLE,
    WARN,
    Batch,
    Rule,
    as_run,
    batch_checks,
    result,
    sql_metadata,
)
from stock_pipeline.defs.supervision import LIVE
from stock_pipeline.market.instruments import instrument
from stock_pipeline.resources.kafka import KafkaResource
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.settings import load_settings
from stock_pipeline.sql_files import load_sql

LOOK_BACK = timedelta(hours=1)
"""What the checks against ticks look at, to now."""

AGGREGATE_LOOK_BACK = timedelta(days=1)

ARRIVALS_LOOK_BACK = timedelta(minutes=20)

LAG_SECONDS, LAG_RECORDS = 30.0, 50_000
"""A stream that is further behind is late."""

STATS_AGE = 60.0
"""Seconds after which a stream that writes no row of stream_stats is not running."""

TABLES_AGE = timedelta(minutes=110)
"""The tables are checked at the first tick, one every 15 minutes, at which the last run is older."""

MAX_SECONDS = 300
"""Checks that take longer are ended by Dagster's monitoring."""

BARS_LOOK_BACK = {
    "ohlcv_data": timedelta(days=1),
    "ohlcv_5m": timedelta(days=2),
    "ohlcv_15m": timedelta(days=7),
    "ohlcv_1h": timedelta(days=30),
    "ohlcv_1d": timedelta(days=365),
}
"""The tables of bars, and how far back they are checked."""

BAR_RULES = (
    Rule("high_is_highest", ERROR, "high ≥ open, low, close: a bar that breaks it was not made of trades."),
    Rule("low_is_lowest", ERROR, "low ≤ open, high, close: a bar that breaks it was not made of trades."),
    Rule("prices_are_positive", ERROR, "every price is above 0 and finite: others are no trades and do not get here."),
    Rule("keys_are_unique", ERROR, "one bar for each timestamp and symbol: a second one would be counted twice."),
    Rule("symbols_are_there", ERROR, "every bar has a symbol: without one nobody finds it."),
)

NOT_NEGATIVE = Rule(
    "measures_are_not_negative", ERROR, "every measure is a number, and 0 or more: the formula or a bar is wrong."
)

FRESH_ROW = Rule("last_row_is_fresh", ERROR, "the newest row of a symbol is of its newest bar: the view lacks bars.")

AROUND_VWAP = Rule("bands_lie_around_vwap", ERROR, "the bands lie in order around vwap: the formula or a bar is wrong.")

VOLATILITY_RULES = (
    NOT_NEGATIVE,
    Rule("jump_share_is_a_share", ERROR, "jump_share lies between 0 and 1: the formula or a bar is wrong."),
    Rule("full_windows_have_values", ERROR, "a full window has every measure: else an instrument has no calendar."),
    FRESH_ROW,
)

SUMS_ARE_RIGHT = Rule(
    "sums_are_those_of_finer_bars",
    ERROR,
    "volume, trades and ticks are the sums of the finer bars: materialise the day to make its bars anew.",
)

MOST_SUMMED = timedelta(days=30)

TICK_RULES = (
    Rule("prices_are_positive", ERROR, "every price is above 0 and finite: others are dead-lettered."),
    Rule("keys_are_unique", ERROR, "every trade is there once: a second one would be counted twice."),
    Rule("symbols_are_there", ERROR, "every trade has a symbol: others are dead-lettered."),
)

ARRIVAL_RULES = (
    Rule(
        "clocks_agree",
        WARN,
        "half of a symbol's trades arrive within 10 s of their time, and not before it: else this machine's clock is "
        "wrong or the feed is slow, and bars come late.",
    ),
    Rule(
        "subscribed_symbols_trade",
        WARN,
        "every subscribed symbol traded in the last hour, if its market has been open since: else its name may be "
        "wrong (SYMBOLS), or the plan does not cover it.",
    ),
)

FEED_WAS_THERE = Rule(
    "feed_was_there",
    WARN,
    "the feed was there in the last two hours: bars of an outage lack its trades, and say so in gap_seconds.",
)

BARS_ARE_FRESH = Rule(
    "bars_are_fresh",
    WARN,
    "a symbol's newest bar is at most three minutes older than its newest trade that may set a price: else the ohlcv "
    "stream is late.",
)

BARS_MATCH_TICKS = Rule(
    "bars_match_ticks",
    ERROR,
    "every bar is what its ticks make it: open, high, low, close, trades and ticks exactly, volume and vwap within "
    "1e-9. `stock-pipeline reconcile --repair` restates a wrong one.",
)

BARS_MATCH_AGGREGATE = Rule(
    "bars_match_aggregate",
    ERROR,
    "high, low, volume, trades and ticks of every bar whose trades have no conditions are those of tick_minute, "
    "TimescaleDB's own aggregation of the ticks: a second opinion, where `bars_match_ticks` shares our SQL's mistakes.",
)

CONDITIONS_ARE_KNOWN = Rule(
    "conditions_are_known",
    WARN,
    "every condition code is in trade_condition: trades with another one count as eligible. Add it to "
    "sql/schema/040_trade_condition.sql.",
)

STREAM_KEEPS_UP = Rule(
    "stream_keeps_up",
    WARN,
    f"the stream runs and is at most {LAG_RECORDS:,} records and {LAG_SECONDS:.0f} s behind: what is newest comes "
    "late. It may catch up after an outage; else see its Spark UI, and give it more cores (SPARK_MASTER).",
)

NO_DEAD_LETTERS = Rule(
    "no_dead_letters",
    WARN,
    "nothing was dead-lettered in the last hour: what is no trade is kept there, with its reason, and is in no bar.",
)


def _subscribed() -> dict[str, list[str]]:
    """What is subscribed, and when it trades."""
    symbols = load_settings().symbols
    return {"symbols": list(symbols), "calendars": [instrument(symbol).calendar for symbol in symbols]}


def _eligibility() -> dict[str, str]:
    """Which trades make bars."""
    return {"eligibility": load_settings().bar_eligibility}


@asset_check(asset="stock_ticks_dead_letter", description=f"WARN: {NO_DEAD_LETTERS.reason}")
def no_dead_letters(kafka: KafkaResource) -> AssetCheckResult:
    count, sample = kafka.dead_letters_since(datetime.now(UTC) - timedelta(hours=1), SAMPLE)
    return result("stock_ticks_dead_letter", NO_DEAD_LETTERS, sample, found=count)


def _stream_keeps_up(asset: str, stream: str) -> AssetChecksDefinition:
    statement, values = load_sql("checks/stream_lag.sql"), {"stream": stream}

    @asset_check(
        asset=asset,
        name=STREAM_KEEPS_UP.name,
        description=f"WARN: {STREAM_KEEPS_UP.reason}",
        metadata=sql_metadata("stream_lag.sql"),
    )
    def check(timescale: TimescaleResource) -> AssetCheckResult:
        with timescale.connect() as connection:
            newest = connection.execute(statement, values).fetchone()
            query = as_run(connection, statement, values)
        keeps_up = (
            newest is not None
            and newest["seconds_ago"] <= STATS_AGE
            and newest["lag_seconds"] <= LAG_SECONDS
            and newest["lag_records"] <= LAG_RECORDS
        )
        late = [] if keeps_up else [newest or {"stream": stream, "seconds_ago": "never"}]
        return result(asset, STREAM_KEEPS_UP, late, query, figures=newest)

    return check


tick_stream_keeps_up = _stream_keeps_up("tick_data", "tick-stream")
ohlcv_stream_keeps_up = _stream_keeps_up("ohlcv_data", "ohlcv-stream")

ARRIVALS = Batch("tick_data", "arrivals.sql", ARRIVAL_RULES, ARRIVALS_LOOK_BACK, values=_subscribed)

FEED = Batch("finnhub_trades", "feed_gaps.sql", [FEED_WAS_THERE], timedelta(hours=2))

FRESH_BARS = Batch("ohlcv_data", "fresh_bars.sql", [BARS_ARE_FRESH], LOOK_BACK, values=_eligibility)

CONDITIONS = Batch("tick_data", "unknown_conditions.sql", [CONDITIONS_ARE_KNOWN], LOOK_BACK)

MATCHES = Batch(
    "ohlcv_data",
    "reconcile_bars.sql",
    [BARS_MATCH_TICKS],
    LOOK_BACK,
    values=lambda: _eligibility() | {"symbol": None},
)

AGGREGATE = Batch("ohlcv_data", "tick_minutes.sql", [BARS_MATCH_AGGREGATE], AGGREGATE_LOOK_BACK, values=_eligibility)


@asset_check(
    asset="ohlcv_data",
    description=f"ERROR: {BARS_MATCH_AGGREGATE.reason}",
    metadata=sql_metadata(AGGREGATE.statement),
)
def bars_match_aggregate(timescale: TimescaleResource) -> AssetCheckResult:
    if not timescale.is_community_edition():
        return AssetCheckResult(
            passed=True,
            severity=BARS_MATCH_AGGREGATE.severity,
            description="Not compared: TimescaleDB's Apache edition has no continuous aggregates.",
        )
    with timescale.connect() as connection:
        rows, query = AGGREGATE.violations(connection)
    return result(AGGREGATE.asset, BARS_MATCH_AGGREGATE, rows, query, rows[0]["found"] if rows else 0)


TICKS = Batch("tick_data", "ticks.sql", TICK_RULES, LOOK_BACK)

BARS = [Batch(table, "bars.sql", BAR_RULES, look_back, {"bars": table}) for table, look_back in BARS_LOOK_BACK.items()]

SUMS = [
    Batch(
        rollup.table,
        "rollup_sums.sql",
        [SUMS_ARE_RIGHT],
        min(BARS_LOOK_BACK[rollup.table], MOST_SUMMED),
        {"rollup": rollup.table, "source": rollup.source},
        partial(dict, rollup=rollup.table, width=rollup.width),
    )
    for rollup in ROLLUPS
]

VIEWS = [
    Batch("volatility_1m", "volatility_1m.sql", (NOT_NEGATIVE, FRESH_ROW), LOOK_BACK),
    Batch("vwap_bands", "vwap_bands.sql", (NOT_NEGATIVE, AROUND_VWAP, FRESH_ROW), LOOK_BACK),
    *(
        Batch(f"volatility_{bars}", "volatility.sql", VOLATILITY_RULES, LOOK_BACK, values=partial(dict, bars=bars))
        for bars in (30, 60, 1440)
    ),
]

live_batches = [batch_checks(batch) for batch in (ARRIVALS, CONDITIONS, FEED, FRESH_BARS, MATCHES)]

table_batches = [batch_checks(batch) for batch in (TICKS, *BARS, *SUMS, *VIEWS)]

LIVE_CHECKS = (
    bars_match_aggregate,
    no_dead_letters,
    tick_stream_keeps_up,
    ohlcv_stream_keeps_up,
    *live_batches,
)

live_checks = define_asset_job(
    "live_checks",
    selection=AssetSelection.checks(*LIVE_CHECKS),
    tags={MAX_RUNTIME_SECONDS_TAG: str(MAX_SECONDS)},
    description="Looks at the feed and the streams, and compares the bars of the last hour with their ticks.",
)

table_checks = define_asset_job(
    "table_checks",
    selection=AssetSelection.checks(*table_batches, *CHECKS_OF_DASHBOARDS),
    tags={MAX_RUNTIME_SECONDS_TAG: str(MAX_SECONDS)},
    description="Looks at ticks, bars, rollups and views by themselves and against each other, and asks every panel.",
)

check_live = ScheduleDefinition(
    name="check_live", job=live_checks, cron_schedule="*/20 * * * *", default_status=DefaultScheduleStatus.RUNNING
)


@schedule(
    job=table_checks,
    cron_schedule="5-59/15 * * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Every two hours, and soon after a start: looks every 15 minutes whether the last run is so long ago.",
)
def check_tables(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
    counted = RunsFilter(job_name=table_checks.name, statuses=[*LIVE, DagsterRunStatus.SUCCESS])
    newest = next(iter(context.instance.get_run_records(counted, limit=1)), None)
    if newest is None or newest.create_timestamp < context.scheduled_execution_time - TABLES_AGE:
        return RunRequest()
    did = "checks the tables since" if newest.dagster_run.status in LIVE else "checked the tables at"
    return SkipReason(f"run {newest.dagster_run.run_id[:8]} {did} {newest.create_timestamp:%H:%M} UTC")
