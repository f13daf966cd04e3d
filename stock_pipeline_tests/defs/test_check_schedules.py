"""When the tables are checked."""

from datetime import UTC, datetime, timedelta

import pytest
from dagster import DagsterInstance, RunRequest, SkipReason, build_schedule_context

from stock_pipeline.definitions import defs
from stock_pipeline.defs.quality.checks import check_tables


def tick(instance: DagsterInstance, later: timedelta) -> RunRequest | SkipReason:
    time = datetime.now(UTC) + later
    with build_schedule_context(instance, scheduled_execution_time=time) as context:
        return check_tables(context)


def test_tables_are_checked_at_the_first_tick_of_a_new_installation():
    with DagsterInstance.local_temp() as instance:
        assert isinstance(tick(instance, timedelta(0)), RunRequest)


@pytest.mark.parametrize(("minutes", "due"), [(15, False), (105, False), (120, True), (6_000, True)])
def test_tables_are_checked_every_two_hours(minutes: int, due: bool):
    with DagsterInstance.local_temp() as instance:
        run = instance.create_run_for_job(defs().get_repository_def().get_job("table_checks"))
        answer = tick(instance, timedelta(minutes=minutes))
        assert isinstance(answer, RunRequest) is due
        assert due or run.run_id[:8] in answer.skip_message


def test_a_run_that_failed_has_not_checked_the_tables():
    with DagsterInstance.local_temp() as instance:
        run = instance.create_run_for_job(defs().get_repository_def().get_job("table_checks"))
        instance.report_run_failed(run, "the database is away")
        assert isinstance(tick(instance, timedelta(minutes=15)), RunRequest)
