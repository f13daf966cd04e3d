"""The newest evaluation of each asset check, and the sensor that tells the market data's database of them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    DefaultSensorStatus,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)
from psycopg.types.json import Jsonb

from stock_pipeline.alerts import brief
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.settings import load_settings
from stock_pipeline.sql_files import load_sql


class Evaluated(NamedTuple):
    """A check's newest evaluation: one that is planned or running changes nothing."""

    check: AssetCheckKey
    evaluation: AssetCheckEvaluation
    at: datetime
    run_id: str


def newest_evaluations(context: SensorEvaluationContext) -> Iterator[Evaluated]:
    """That of every check that has ever been evaluated."""
    keys = context.repository_def.asset_graph.asset_check_keys if context.repository_def else ()
    for check, summary in context.instance.event_log_storage.get_asset_check_summary_records(list(keys)).items():
        record = summary.last_completed_check_execution_record
        evaluation = record.evaluation if record else None
        if record is not None and evaluation is not None:
            at = datetime.fromtimestamp(record.event.timestamp if record.event else record.create_timestamp, UTC)
            yield Evaluated(check, evaluation, at, record.run_id)


@sensor(
    minimum_interval_seconds=60,
    default_status=DefaultSensorStatus.RUNNING,
    description=(
        "Writes the newest evaluation of each asset check into asset_check_state, where Grafana sees it: its rule "
        "asset check failed, and its dashboards."
    ),
)
def tell_of_checks(context: SensorEvaluationContext, timescale: TimescaleResource) -> SkipReason:
    secrets = load_settings().secrets()
    rows = [
        {
            "asset": check.asset_key.to_user_string(),
            "check": check.name,
            "severity": evaluation.severity.value,
            "passed": evaluation.passed,
            "description": brief(evaluation.description, secrets) if evaluation.description else None,
            "evaluated_at": at.isoformat(),
        }
        for check, evaluation, at, _ in newest_evaluations(context)
    ]
    with timescale.connect("writer") as connection:
        connection.execute(load_sql("queries/replace_asset_check_state.sql"), {"evaluations": Jsonb(rows)})
    failed = sum(not row["passed"] for row in rows)
    return SkipReason(f"{len(rows)} checks were evaluated so far; of their newest evaluations {failed} failed")
