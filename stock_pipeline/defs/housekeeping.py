"""Deletes old runs, whose event logs would otherwise grow for ever.

Dagster knows the state of a partition from the events of the run that materialised it: deleting that run would forget
the partition. So a run that holds a last report stays, however old it is.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultScheduleStatus,
    EventLogRecord,
    OpExecutionContext,
    RunRecord,
    RunsFilter,
    ScheduleDefinition,
    in_process_executor,
    job,
    op,
)
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.tags import MAX_RUNTIME_SECONDS_TAG, SCHEDULE_NAME_TAG, SENSOR_NAME_TAG

SUCCESSFUL_SCHEDULED_AGE = timedelta(hours=6)
"""How long a scheduled run that succeeded is kept: there are some 1,600 a day."""

OTHER_AGE = timedelta(days=7)
"""How long a run of a service is kept, and a scheduled run that failed or was cancelled."""

MOST = 2_000
"""Runs deleted at a time; the next hour goes on."""

PAGE = 500
"""Runs read at a time."""

MAX_SECONDS = 600
"""A deletion that takes longer is ended by Dagster's monitoring."""

REPORTS = {DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.ASSET_CHECK_EVALUATION}


class Plan(NamedTuple):
    """Runs that are past their age."""

    to_delete: list[str]
    kept: list[str]
    """Those that hold a last report."""


def plan_deletion(instance: DagsterInstance, now: datetime) -> Plan:
    """Which old runs to delete, the oldest first. Runs that a person launched are none of them."""
    plan = Plan([], [])
    holds_last_report = _last_reports(instance)
    for record in _finished_runs(instance, now - SUCCESSFUL_SCHEDULED_AGE):
        run, age = record.dagster_run, _age(record.dagster_run)
        if age is None or record.update_timestamp >= now - age:
            continue
        (plan.kept if holds_last_report(run) else plan.to_delete).append(run.run_id)
        if len(plan.to_delete) == MOST:
            break
    return plan


def _finished_runs(instance: DagsterInstance, before: datetime) -> Iterator[RunRecord]:
    finished = RunsFilter(statuses=FINISHED_STATUSES, updated_before=before)
    cursor = None
    while page := instance.get_run_records(finished, limit=PAGE, ascending=True, cursor=cursor):
        yield from page
        cursor = page[-1].dagster_run.run_id


def _age(run: DagsterRun) -> timedelta | None:
    """How long a run is kept; None: for ever."""
    if SCHEDULE_NAME_TAG in run.tags:
        return SUCCESSFUL_SCHEDULED_AGE if run.status == DagsterRunStatus.SUCCESS else OTHER_AGE
    return OTHER_AGE if "service" in run.tags and SENSOR_NAME_TAG in run.tags else None


def _last_reports(instance: DagsterInstance) -> Callable[[DagsterRun], bool]:
    """Tells whether a run is the newest of its job, or holds the newest report of an asset, partition or check."""
    storage = instance.event_log_storage

    @cache
    def newest_run(job_name: str) -> str:
        return instance.get_runs(RunsFilter(job_name=job_name), limit=1)[0].run_id

    @cache
    def newest_materialization(asset: AssetKey) -> str | None:
        event = instance.get_latest_materialization_event(asset)
        return event.run_id if event else None

    @cache
    def newest_by_partition(asset: AssetKey) -> set[int]:
        newest = storage.get_latest_storage_id_by_partition(asset, DagsterEventType.ASSET_MATERIALIZATION)
        return set(newest.values())

    @cache
    def newest_evaluation(check: AssetCheckKey) -> str | None:
        record = storage.get_asset_check_summary_records([check])[check].last_completed_check_execution_record
        return record.run_id if record else None

    def is_newest(record: EventLogRecord) -> bool:
        event = record.event_log_entry.get_dagster_event()
        if isinstance(evaluation := event.event_specific_data, AssetCheckEvaluation):
            return newest_evaluation(evaluation.asset_check_key) == record.run_id
        asset = event.asset_key
        return asset is not None and (
            newest_materialization(asset) == record.run_id or record.storage_id in newest_by_partition(asset)
        )

    def holds_last_report(run: DagsterRun) -> bool:
        return newest_run(run.job_name) == run.run_id or any(
            is_newest(record) for record in instance.get_records_for_run(run.run_id, of_type=REPORTS).records
        )

    return holds_last_report


def _delete_evaluations(instance: DagsterInstance, run_ids: Sequence[str]) -> None:
    """Delete the history of asset checks of these runs, which Dagster keeps when it deletes a run."""
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        table = AssetCheckExecutionsTable
        with storage.index_transaction() as connection:
            connection.execute(table.delete().where(table.c.run_id.in_(run_ids)))


@op
def delete_runs(context: OpExecutionContext) -> None:
    """Deletes the old runs with their events and their output."""
    plan = plan_deletion(context.instance, datetime.now(UTC))
    for run_id in plan.to_delete:
        context.instance.compute_log_manager.delete_logs(prefix=[run_id])
        context.instance.delete_run(run_id)
    _delete_evaluations(context.instance, plan.to_delete)
    context.log.info(f"{len(plan.to_delete)} old runs deleted, {len(plan.kept)} kept, which hold a last report")
    context.add_output_metadata({"deleted": len(plan.to_delete), "kept": len(plan.kept)})


@job(
    executor_def=in_process_executor,
    tags={MAX_RUNTIME_SECONDS_TAG: str(MAX_SECONDS)},
    description="Deletes old runs of the services and schedules, but none that holds a last report.",
)
def delete_old_runs() -> None:
    delete_runs()


delete_old_runs_hourly = ScheduleDefinition(
    name="delete_old_runs_hourly",
    job=delete_old_runs,
    cron_schedule="37 * * * *",
    default_status=DefaultScheduleStatus.RUNNING,
)
