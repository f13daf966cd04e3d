"""Which old runs go and which stay, by real runs on SQLite; and Dagster's configuration, loaded as Dagster loads it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from dagster import (
    AssetCheckKey,
    AssetCheckResult,
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetSelection,
    DagsterInstance,
    DagsterRun,
    Definitions,
    OpExecutionContext,
    StaticPartitionsDefinition,
    asset,
    asset_check,
    define_asset_job,
    in_process_executor,
    job,
    op,
)
from dagster._core.instance.config import PoolGranularity
from dagster._utils.tags import TagConcurrencyLimitsCounter

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.definitions import defs
from stock_pipeline.defs import housekeeping, supervision
from stock_pipeline.defs.housekeeping import delete_old_runs, plan_deletion
from stock_pipeline.services.supervisor import STOP_PATIENCE

SCHEDULE = {"dagster/schedule_name": "every_minute"}

SERVICE = {"service": "producer", "dagster/sensor_name": "keep_producer_running"}

A_YEAR_LATER = datetime.now(UTC) + timedelta(days=366)


@asset(partitions_def=StaticPartitionsDefinition(["a", "b"]))
def parted(context: AssetExecutionContext) -> None:
    context.log.info("made")


@asset
def whole() -> None: ...


@asset_check(asset=whole)
def whole_is_right() -> AssetCheckResult:
    return AssetCheckResult(passed=True)


@op
def fail_where_told(context: OpExecutionContext) -> None:
    if "fails" in context.run_tags:
        raise RuntimeError("as told")


@job(executor_def=in_process_executor)
def work() -> None:
    fail_where_told()


DEFINITIONS = Definitions(
    assets=[parted, whole],
    asset_checks=[whole_is_right],
    jobs=[
        work,
        define_asset_job("make_parted", selection=[parted], executor_def=in_process_executor),
        define_asset_job("make_whole", AssetSelection.assets(whole).without_checks(), executor_def=in_process_executor),
        define_asset_job("check_whole", AssetSelection.checks(whole_is_right), executor_def=in_process_executor),
    ],
)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """On SQLite, its events in one database, as they are in PostgreSQL."""
    database = {"base_dir": str(tmp_path)}
    storages = {
        "run_storage": ("dagster._core.storage.runs", "SqliteRunStorage"),
        "event_log_storage": ("dagster._core.storage.event_log", "ConsolidatedSqliteEventLogStorage"),
    }
    content = {name: {"module": module, "class": kind, "config": database} for name, (module, kind) in storages.items()}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({**content, "telemetry": {"enabled": False}}))
    with DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


def run(instance: DagsterInstance, name: str, tags: Mapping[str, str], partition: str | None = None) -> str:
    chosen = DEFINITIONS.resolve_job_def(name)
    return chosen.execute_in_process(instance=instance, tags=tags, partition_key=partition, raise_on_error=False).run_id


def deleted(instance: DagsterInstance, **later: float) -> list[str]:
    """What would be deleted so much later."""
    return plan_deletion(instance, datetime.now(UTC) + timedelta(**later)).to_delete


def test_each_kind_of_run_is_kept_for_its_time(instance: DagsterInstance):
    scheduled = run(instance, "work", SCHEDULE)
    failed = run(instance, "work", {**SCHEDULE, "fails": "yes"})
    service = run(instance, "work", SERVICE)
    run(instance, "work", {})
    run(instance, "work", {"service": "producer"})
    run(instance, "work", SCHEDULE)
    assert deleted(instance, hours=5.9) == []
    assert deleted(instance, hours=6.1) == [scheduled]
    assert deleted(instance, days=6.9) == [scheduled]
    assert deleted(instance, days=7.1) == [scheduled, failed, service]


def test_the_newest_run_of_a_job_stays(instance: DagsterInstance):
    first, _newest = [run(instance, "work", {**SERVICE, "fails": "yes"}) for _ in range(2)]
    assert plan_deletion(instance, A_YEAR_LATER).to_delete == [first]


def test_a_run_that_does_not_end_stays(instance: DagsterInstance):
    started = instance.create_run_for_job(work, tags=SCHEDULE)
    run(instance, "work", SCHEDULE)
    assert plan_deletion(instance, A_YEAR_LATER).to_delete == []
    instance.report_run_canceled(started)
    assert plan_deletion(instance, A_YEAR_LATER).to_delete == [started.run_id]


def test_the_last_materialization_of_each_partition_stays(instance: DagsterInstance):
    first_a, b, second_a = [run(instance, "make_parted", SCHEDULE, partition) for partition in "aba"]
    run(instance, "make_parted", {}, "a")
    plan = plan_deletion(instance, A_YEAR_LATER)
    assert plan.to_delete == [first_a, second_a]
    assert plan.kept == [b]


def test_a_run_whose_report_was_repeated_without_a_run_goes(instance: DagsterInstance):
    first, _newest = [run(instance, "make_parted", SCHEDULE, partition) for partition in "ab"]
    assert plan_deletion(instance, A_YEAR_LATER).to_delete == []
    instance.report_runless_asset_event(AssetMaterialization("parted", partition="a"))
    assert plan_deletion(instance, A_YEAR_LATER).to_delete == [first]


@pytest.mark.parametrize("name", ["make_whole", "check_whole"])
def test_the_last_materialization_and_the_last_evaluation_stay(instance: DagsterInstance, name: str):
    first, last = [run(instance, name, SCHEDULE) for _ in range(2)]
    instance.create_run_for_job(DEFINITIONS.resolve_job_def(name), tags=SCHEDULE)
    plan = plan_deletion(instance, A_YEAR_LATER)
    assert plan.to_delete == [first]
    assert plan.kept == [last]


def test_the_plan_goes_through_all_pages_and_stops_at_its_limit(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    runs = [run(instance, "work", SCHEDULE) for _ in range(5)]
    monkeypatch.setattr(housekeeping, "PAGE", 2)
    assert plan_deletion(instance, A_YEAR_LATER).to_delete == runs[:4]
    monkeypatch.setattr(housekeeping, "MOST", 3)
    assert plan_deletion(instance, A_YEAR_LATER).to_delete == runs[:3]


def test_the_job_deletes_runs_events_and_output_and_the_partitions_are_still_known(
    instance: DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(housekeeping, "SUCCESSFUL_SCHEDULED_AGE", timedelta(0))
    old, a, b = [run(instance, "make_parted", SCHEDULE, partition) for partition in "aab"]
    assert (tmp_path / "storage" / old).is_dir()
    result = delete_old_runs.execute_in_process(instance=instance)
    assert {record.run_id for record in instance.get_runs()} == {a, b, result.run_id}
    assert not (tmp_path / "storage" / old).exists()
    assert (tmp_path / "storage" / a).is_dir()
    assert instance.all_logs(old) == []
    assert instance.get_materialized_partitions(AssetKey("parted")) == {"a", "b"}
    (output,) = [event for event in result.all_events if event.is_successful_output]
    assert {name: value.value for name, value in output.step_output_data.metadata.items()} == {"deleted": 1, "kept": 2}


def test_the_job_deletes_the_history_of_checks_but_for_its_end(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(housekeeping, "SUCCESSFUL_SCHEDULED_AGE", timedelta(0))
    last = [run(instance, "check_whole", SCHEDULE) for _ in range(3)][-1]
    delete_old_runs.execute_in_process(instance=instance)
    key = AssetCheckKey(AssetKey("whole"), "whole_is_right")
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert [record.run_id for record in history] == [last]


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[DagsterInstance]:
    """The instance of `stock-pipeline run`, on SQLite instead of PostgreSQL."""
    content = yaml.safe_load((PROJECT_ROOT / "stock_pipeline" / "local" / "dagster.yaml").read_text())
    content["storage"] = {"sqlite": {"base_dir": str(tmp_path)}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(content))
    with DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


def test_dagsters_configuration_lets_one_run_of_a_kind_through(configured: DagsterInstance):
    queue = configured.get_concurrency_config().run_queue_config
    limits = TagConcurrencyLimitsCounter(queue.tag_concurrency_limits, [tagged(service="producer")])
    assert limits.is_blocked(tagged(service="producer"))
    assert not limits.is_blocked(tagged(service="tick-stream"))
    assert not limits.is_blocked(tagged())


def test_a_run_waits_for_another_one_of_its_pool(configured: DagsterInstance):
    assert configured.global_op_concurrency_default_limit == 1
    assert configured.get_concurrency_config().pool_config.pool_granularity == PoolGranularity.RUN
    pools = {asset.op.pool for asset in defs().get_repository_def().assets_defs_by_key.values() if asset.is_executable}
    assert pools == {None, "rollups", "rebuild"}


def tagged(**tags: str) -> DagsterRun:
    return DagsterRun(job_name="work", tags=tags)


def test_dagsters_monitoring_leaves_a_supervising_run_alone(configured: DagsterInstance):
    assert configured.run_monitoring_enabled
    assert not configured.run_launcher.supports_check_run_worker_health
    assert configured.run_monitoring_max_runtime_seconds > 2 * supervision.LEASE
    assert configured.run_monitoring_start_timeout_seconds > supervision.LAUNCH_PATIENCE
    assert configured.run_monitoring_cancel_timeout_seconds > 2 * STOP_PATIENCE


def test_dagster_watches_freshness(configured: DagsterInstance):
    assert "FRESHNESS_DAEMON" in configured.get_required_daemon_types()
