"""The sensors, by real ticks on an ephemeral instance, and what Dagster shows of the project."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    RunRequest,
    SkipReason,
    build_sensor_context,
)

from stock_pipeline.defs import supervision
from stock_pipeline.defs.ingest.producer import keep_producer_running, producer
from stock_pipeline.defs.supervision import supervisor_lock
from stock_pipeline.services.lock import hold
from stock_pipeline.services.service import lock_path
from stock_pipeline.services.supervisor import held_path
from stock_pipeline.settings import load_settings


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    monkeypatch.setenv("STOCK_PIPELINE_HOME", str(tmp_path))
    load_settings.cache_clear()
    with DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
    load_settings.cache_clear()


def tick(instance: DagsterInstance) -> RunRequest | SkipReason:
    with build_sensor_context(instance) as context:
        return keep_producer_running(context)


def add_run(instance: DagsterInstance, status: DagsterRunStatus) -> str:
    return instance.create_run_for_job(producer, status=status).run_id


def test_without_a_run_one_is_requested(instance: DagsterInstance):
    assert tick(instance).run_key == "producer:first"


# A queued run cannot be made here without a code location.
@pytest.mark.parametrize("status", [s for s in supervision.LIVE if s is not DagsterRunStatus.QUEUED])
def test_beside_a_live_run_there_is_no_second(instance: DagsterInstance, status: DagsterRunStatus):
    add_run(instance, status)
    with hold(supervisor_lock(load_settings(), "producer")):
        assert "producer: run" in tick(instance).skip_message


def test_a_run_that_nobody_executes_is_failed_and_replaced(instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch):
    run_id = add_run(instance, DagsterRunStatus.STARTED)
    assert isinstance(tick(instance), SkipReason), "a run that has just started may still attach"
    monkeypatch.setattr(supervision, "ATTACH_PATIENCE", -1)
    assert tick(instance).run_key == f"producer:{run_id}"
    assert instance.get_run_by_id(run_id).status == DagsterRunStatus.FAILURE


def test_a_cancelling_run_that_nobody_executes_is_cancelled_and_stays_down(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(supervision, "ATTACH_PATIENCE", -1)
    run_id = add_run(instance, DagsterRunStatus.CANCELING)
    assert "cancelled" in tick(instance).skip_message
    assert instance.get_run_by_id(run_id).status == DagsterRunStatus.CANCELED
    assert "stopped by a person" in tick(instance).skip_message


def test_a_run_that_was_cancelled_stays_down_until_a_person_starts_it(instance: DagsterInstance):
    add_run(instance, DagsterRunStatus.CANCELED)
    assert "stopped by a person" in tick(instance).skip_message
    add_run(instance, DagsterRunStatus.SUCCESS)
    assert isinstance(tick(instance), RunRequest)


def test_a_service_that_a_person_stopped_stays_down_though_dagster_has_lost_its_runs(instance: DagsterInstance):
    held = held_path(load_settings(), "producer")
    held.parent.mkdir(parents=True)
    held.touch()
    assert "stopped by a person" in tick(instance).skip_message
    add_run(instance, DagsterRunStatus.FAILURE)
    assert isinstance(tick(instance), RunRequest), "a person has launched it since"


def test_after_repeated_failures_it_backs_off(instance: DagsterInstance):
    for _ in range(2):
        last = add_run(instance, DagsterRunStatus.FAILURE)
    assert tick(instance).run_key == f"producer:{last}"
    last = add_run(instance, DagsterRunStatus.FAILURE)
    assert "failed 3 times" in tick(instance).skip_message
    with hold(lock_path(load_settings(), "producer")):
        assert tick(instance).run_key == f"producer:{last}", "its process runs: it was Dagster that failed"


def test_a_supervisor_that_outlives_its_run_is_left_alone(instance: DagsterInstance):
    add_run(instance, DagsterRunStatus.FAILURE)
    with hold(supervisor_lock(load_settings(), "producer")):
        assert "still supervises" in tick(instance).skip_message
