"""Drops old ticks on TimescaleDB's Apache edition; the community edition does it by a job of its own."""

from dagster import (
    DefaultScheduleStatus,
    OpExecutionContext,
    RunRequest,
    SkipReason,
    in_process_executor,
    job,
    op,
    schedule,
)
from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG

from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.settings import load_settings
from stock_pipeline.sql_files import load_sql

MAX_SECONDS = 600
"""A drop that takes longer is ended by Dagster's monitoring."""


@op
def drop_ticks(context: OpExecutionContext, timescale: TimescaleResource) -> None:
    """Drops the chunks of tick_data that are wholly older than TICK_RETENTION_DAYS."""
    days = load_settings().tick_retention_days
    with timescale.connect("owner") as connection:
        row = connection.execute(load_sql("queries/drop_old_ticks.sql"), {"days": days}).fetchone()
    assert row is not None
    dropped = f"those before {row['kept_from']} have been dropped" if row["kept_from"] else "none was dropped yet"
    context.log.info(f"ticks are kept for {days} days: {dropped}")


@job(
    executor_def=in_process_executor,
    tags={MAX_RUNTIME_SECONDS_TAG: str(MAX_SECONDS)},
    description="Drops ticks that are older than TICK_RETENTION_DAYS; their bars stay, and never change again.",
)
def drop_old_ticks() -> None:
    drop_ticks()


@schedule(
    job=drop_old_ticks,
    cron_schedule="11 4 * * *",
    default_status=DefaultScheduleStatus.RUNNING,
    description="Each day on TimescaleDB's Apache edition; the community edition does it by a job of its own.",
)
def drop_old_ticks_daily(timescale: TimescaleResource) -> RunRequest | SkipReason:
    if timescale.is_community_edition():
        return SkipReason("TimescaleDB drops them by a job of its own (timescaledb_information.jobs)")
    return RunRequest()
