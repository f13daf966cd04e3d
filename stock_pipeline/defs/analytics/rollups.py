"""The rollups, and the schedule that keeps them fresh.

The schedule makes only the bars anew whose finer bars have changed, wherever they lie; materialising a day, or a
backfill, makes all of the day's.
"""

from datetime import UTC, datetime, timedelta

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetsDefinition,
    AssetSelection,
    BackfillPolicy,
    Config,
    DefaultScheduleStatus,
    FreshnessPolicy,
    RunConfig,
    RunRequest,
    RunsFilter,
    ScheduleEvaluationContext,
    SkipReason,
    asset,
    define_asset_job,
    schedule,
)
from pydantic import Field

from stock_pipeline.bars.rollups import ROLLUPS, Rollup, refresh
from stock_pipeline.defs.supervision import LIVE
from stock_pipeline.defs.table_report import bar_metadata, count_bars
from stock_pipeline.defs.tables import DAYS, Lineage, table_metadata
from stock_pipeline.resources.timescale import TimescaleResource

EVERY = {"ohlcv_5m": 1, "ohlcv_15m": 5, "ohlcv_1h": 15, "ohlcv_1d": 15}
"""Minutes between two refreshes."""

MAX_SECONDS = 300
"""A refresh that takes longer is ended by Dagster's monitoring, so that it cannot hold up the next for ever."""

DAY_RULE = {
    "ohlcv_1d": (
        "a day of a symbol: a stock's regular session, stamped at its open; of crypto and forex the UTC day. Bars "
        "outside the session are in no day"
    )
}


class RefreshConfig(Config):
    only_changed: bool = Field(False, description="leave bars as they are whose finer bars have not changed")
    with_chart: bool = Field(True, description="show the newest bars, as a chart too")


def _lineage(rollup: Rollup) -> Lineage:
    """Each column comes from the finer bars' own; first and last need the time, the mean its weights."""
    columns = ("timestamp", "symbol", "high", "low", "volume", "trades", "ticks", "is_final", "gap_seconds")
    return {
        **{column: [(rollup.source, column)] for column in columns},
        "open": [(rollup.source, "open"), (rollup.source, "timestamp")],
        "close": [(rollup.source, "close"), (rollup.source, "timestamp")],
        "vwap": [(rollup.source, "vwap"), (rollup.source, "volume")],
    }


def rollup_asset(rollup: Rollup) -> AssetsDefinition:
    """The asset of one rollup."""
    every = EVERY[rollup.table]
    grain = DAY_RULE.get(rollup.table, f"{rollup.table.removeprefix('ohlcv_')} of a symbol")

    @asset(
        name=rollup.table,
        deps=[rollup.source],
        group_name="analytics",
        kinds={"postgres", "table"},
        partitions_def=DAYS,
        backfill_policy=BackfillPolicy.single_run(),
        freshness_policy=FreshnessPolicy.time_window(
            fail_window=timedelta(minutes=4 * every + 10), warn_window=timedelta(minutes=2 * every + 5)
        ),
        metadata=table_metadata(rollup.table, columns_of="ohlcv_data", lineage=_lineage(rollup)),
        description=(
            f"Bars made of {rollup.source}: open of the first, close of the last, highest high, lowest low, vwap "
            f"weighted by volume, sums of the rest. Grain: {grain}. Key: (timestamp, symbol). A late trade that "
            f"changes a finer bar changes this one at the next refresh, however late it is. Refreshed every {every} "
            "minutes. Materialise a day to make all of its bars anew."
        ),
    )
    def build(context: AssetExecutionContext, config: RefreshConfig, timescale: TimescaleResource) -> None:
        window = context.partition_time_window
        with timescale.connect("writer") as connection:
            days = refresh(connection, rollup, None if config.only_changed else (window.start, window.end))
        for done in days:
            begin = datetime(done.day.year, done.day.month, done.day.day, tzinfo=UTC)
            if done.changed and not window.start <= begin < window.end:
                # A report of its own, which the deletion of this run leaves there.
                context.instance.report_runless_asset_event(
                    AssetMaterialization(
                        rollup.table,
                        partition=done.day.isoformat(),
                        metadata={
                            "bars_looked_at": done.looked_at,
                            "bars_changed": done.changed,
                            "dagster/partition_row_count": count_bars(
                                timescale, rollup.table, begin, begin + timedelta(days=1)
                            ),
                        },
                    )
                )
        rows = count_bars(timescale, rollup.table, window.start, window.end)
        if not rows:
            context.log.info(f"{rollup.table}: no bars, since there are no trades")
        # Not as a result's, which would be logged twice.
        context.add_asset_metadata(
            {
                "bars_looked_at": sum(done.looked_at for done in days),
                "bars_changed": sum(done.changed for done in days),
                "dagster/partition_row_count": rows,
                **(bar_metadata(timescale, rollup.table) if config.with_chart else {}),
            }
        )

    return build


ohlcv_5m, ohlcv_15m, ohlcv_1h, ohlcv_1d = (rollup_asset(rollup) for rollup in ROLLUPS)

rollups = define_asset_job(
    "rollups",
    selection=AssetSelection.assets(*(rollup.table for rollup in ROLLUPS)).without_checks(),
    tags={"exclusive": "rollups", "dagster/max_runtime": str(MAX_SECONDS)},
    description="Makes rollups anew: what has changed, or whole days.",
)


@schedule(
    job=rollups,
    cron_schedule="* * * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Follows the bars of one minute: ohlcv_5m every minute, ohlcv_15m every 5, the others every 15.",
)
def refresh_rollups(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
    running = context.instance.get_run_records(RunsFilter(job_name=rollups.name, statuses=LIVE), limit=1)
    if running:
        return SkipReason(f"run {running[0].dagster_run.run_id[:8]} still makes rollups")
    now = context.scheduled_execution_time
    due = [rollup.table for rollup in ROLLUPS if now.minute % EVERY[rollup.table] == 0]
    config = RefreshConfig(only_changed=True, with_chart=now.minute == 0)
    return RunRequest(
        partition_key=now.astimezone(UTC).date().isoformat(),
        asset_selection=[AssetKey(table) for table in due],
        # Else the checks of these assets, too: they have a schedule of their own.
        asset_check_keys=[],
        run_config=RunConfig(ops=dict.fromkeys(due, config)),
    )
