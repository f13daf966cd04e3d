"""The rollups, and the schedule that keeps them fresh.

The schedule makes only the bars anew whose finer bars have changed, wherever they lie; materialising a day, or a
backfill, makes all of the day's.
"""

from datetime import UTC, date, datetime, timedelta

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetRecordsFilter,
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
from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG
from pydantic import Field

from stock_pipeline.bars.rollups import ROLLUPS, Refreshed, Rollup, has_changed, refresh
from stock_pipeline.defs.supervision import LIVE
from stock_pipeline.defs.table_report import bar_metadata, count_bars
from stock_pipeline.defs.tables import DAYS, Lineage, table_metadata
from stock_pipeline.resources.timescale import TimescaleResource

EVERY = {"ohlcv_5m": 1, "ohlcv_15m": 5, "ohlcv_1h": 15, "ohlcv_1d": 15}
"""Minutes between two refreshes, from the full hour on."""

AT_REST = {table: timedelta(minutes=2 * every + 2) for table, every in EVERY.items()}
"""How old a rollup may be of which nothing has changed: it is made before its freshness gives a warning."""

MAX_SECONDS = 300
"""A scheduled refresh that takes longer is ended by Dagster's monitoring: it cannot hold up the next for ever."""

DAY_RULE = {
    "ohlcv_1d": (
        "a day of a symbol: a stock's regular session, stamped at its open; of crypto and forex the UTC day. Bars "
        "outside the session are in no day"
    )
}


OF_A_DAY = [("market_session", "opens"), ("market_session", "closes"), ("instrument", "calendar")]
"""What says where a day begins and ends."""


class RefreshConfig(Config):
    only_changed: bool = Field(False, description="leave bars as they are whose finer bars have not changed")
    with_chart: bool = Field(True, description="show the newest bars, as a chart too")


def _lineage(rollup: Rollup) -> Lineage:
    """Each column comes from the finer bars' own; first and last need the time, the mean its weights."""
    columns = ("timestamp", "symbol", "high", "low", "volume", "trades", "ticks", "is_final")
    return {
        **{column: [(rollup.source, column)] for column in columns},
        "open": [(rollup.source, "open"), (rollup.source, "timestamp")],
        "close": [(rollup.source, "close"), (rollup.source, "timestamp")],
        "vwap": [(rollup.source, "vwap"), (rollup.source, "volume")],
        **({"timestamp": [(rollup.source, "timestamp"), *OF_A_DAY]} if rollup.table == "ohlcv_1d" else {}),
    }


def _figures(refreshed: Refreshed | None, rows: int) -> dict[str, int]:
    """What a materialisation says of a day."""
    return {
        "bars_looked_at": refreshed.looked_at if refreshed else 0,
        "bars_changed": refreshed.changed if refreshed else 0,
        "dagster/partition_row_count": rows,
    }


def rollup_asset(rollup: Rollup) -> AssetsDefinition:
    """The asset of one rollup."""
    every = EVERY[rollup.table]
    grain = DAY_RULE.get(rollup.table, f"{rollup.table.removeprefix('ohlcv_')} of a symbol")

    @asset(
        name=rollup.table,
        deps=[rollup.source, *(["market_session", "instrument"] if rollup.table == "ohlcv_1d" else [])],
        group_name="analytics",
        kinds={"postgres", "table"},
        partitions_def=DAYS,
        pool="rollups",
        backfill_policy=BackfillPolicy.single_run(),
        freshness_policy=FreshnessPolicy.time_window(
            fail_window=timedelta(minutes=4 * every + 10), warn_window=timedelta(minutes=2 * every + 5)
        ),
        metadata=table_metadata(rollup.table, columns_of="ohlcv_data", lineage=_lineage(rollup)),
        description=(
            f"Bars made of {rollup.source}: open of the first, close of the last, highest high, lowest low, vwap "
            f"weighted by volume, sums of the rest; trades of a minute without a bar are in none. Grain: {grain}. Key: "
            "(timestamp, symbol). A late trade that changes a finer bar changes this one at the next refresh, however "
            f"late it is. Refreshed every {every} minutes while bars change. Materialise a day to make all bars anew."
        ),
    )
    def build(context: AssetExecutionContext, config: RefreshConfig, timescale: TimescaleResource) -> None:
        window = context.partition_time_window
        with timescale.connect("writer") as connection:
            days = refresh(connection, rollup, None if config.only_changed else (window.start, window.end))
        done = {refreshed.day.isoformat(): refreshed for refreshed in days}
        rows = count_bars(timescale, rollup.table, window.start, window.end)
        empty = [day for day in context.partition_keys if date.fromisoformat(day) not in rows]
        if empty and not config.only_changed:
            context.log.info(
                f"{rollup.table}: {len(empty)} of {len(context.partition_keys)} days have no bar, since "
                f"{rollup.source} has none in them that belongs to one"
            )
        # Not as a result's, which would be logged twice.
        for day in context.partition_keys:
            context.add_asset_metadata(_figures(done.get(day), rows.get(date.fromisoformat(day), 0)), partition_key=day)
        if config.with_chart:
            shown = bar_metadata(timescale, rollup.table, before=window.end)
            context.add_asset_metadata(shown, partition_key=context.partition_keys[-1])
        for day, refreshed in done.items():
            if refreshed.changed and day not in context.partition_keys and DAYS.has_partition_key(day):
                begin = DAYS.time_window_for_partition_key(day).start
                rows = count_bars(timescale, rollup.table, begin, begin + timedelta(days=1))
                # A report of its own, which the deletion of this run leaves there.
                context.instance.report_runless_asset_event(
                    AssetMaterialization(
                        rollup.table, partition=day, metadata=_figures(refreshed, rows.get(refreshed.day, 0))
                    )
                )

    return build


ohlcv_5m, ohlcv_15m, ohlcv_1h, ohlcv_1d = (rollup_asset(rollup) for rollup in ROLLUPS)

rollups = define_asset_job(
    "rollups",
    selection=AssetSelection.assets(*(rollup.table for rollup in ROLLUPS)).without_checks(),
    description="Makes rollups anew: what has changed, or whole days.",
)


@schedule(
    job=rollups,
    cron_schedule="* * * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description=(
        "Follows the bars of one minute: ohlcv_5m every minute, ohlcv_15m every 5, the others every 15; where nothing "
        "has changed, half as often or less."
    ),
)
def refresh_rollups(context: ScheduleEvaluationContext, timescale: TimescaleResource) -> RunRequest | SkipReason:
    running = context.instance.get_run_records(RunsFilter(job_name=rollups.name, statuses=LIVE), limit=1)
    if running:
        return SkipReason(f"run {running[0].dagster_run.run_id[:8]} still makes rollups")
    now = context.scheduled_execution_time.astimezone(UTC)
    day = now.date().isoformat()
    due = {}
    with timescale.connect() as connection:
        for rollup in ROLLUPS:
            table, every = rollup.table, EVERY[rollup.table]
            of_day = AssetRecordsFilter(asset_key=AssetKey(table), asset_partitions=[day])
            newest = context.instance.fetch_materializations(of_day, limit=1).records
            made_at = datetime.fromtimestamp(newest[0].timestamp if newest else 0, UTC)
            if made_at >= now.replace(minute=now.minute - now.minute % every):
                continue
            if made_at <= now - AT_REST[table] or has_changed(connection, rollup):
                due[table] = RefreshConfig(only_changed=True, with_chart=made_at < now.replace(minute=0))
    if not due:
        return SkipReason("all rollups were made since they were due, or nothing has changed")
    return RunRequest(
        partition_key=day,
        asset_selection=[AssetKey(table) for table in due],
        # Else the checks of these assets, too: they have a schedule of their own.
        asset_check_keys=[],
        run_config=RunConfig(ops=due),
        tags={MAX_RUNTIME_SECONDS_TAG: str(MAX_SECONDS)},
    )
