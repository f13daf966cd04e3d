"""Checks of the bars against their ticks, and of what the ticks say, every ten minutes."""

from datetime import UTC, datetime, timedelta

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetSelection,
    DefaultScheduleStatus,
    MetadataValue,
    ScheduleDefinition,
    TableRecord,
    asset_check,
    define_asset_job,
)

from stock_pipeline.bars.reconciliation import reconcile
from stock_pipeline.database import SQL_FOLDER
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.settings import load_settings

LOOK_BACK = timedelta(hours=2)
"""What the checks look at, to now."""

SAMPLE = 20
"""Most rows shown."""


@asset_check(
    asset="ohlcv_data",
    description=(
        "Every bar of the last hours is what its ticks make it: open, high, low, close, trades and ticks exactly, "
        "volume and vwap within 1e-9. ERROR: a wrong bar; `stock-pipeline reconcile --repair` restates it."
    ),
)
def bars_match_ticks(timescale: TimescaleResource) -> AssetCheckResult:
    end = datetime.now(UTC)
    with timescale.connect() as connection:
        different = list(reconcile(connection, load_settings(), end - LOOK_BACK, end))
    return _result(different, AssetCheckSeverity.ERROR, "checks/reconcile_bars.sql")


@asset_check(
    asset="tick_data",
    description=(
        "Every condition code of the last hours is in trade_condition. WARN: trades with another one count as "
        "eligible; add it to sql/schema/040_trade_condition.sql."
    ),
)
def conditions_are_known(timescale: TimescaleResource) -> AssetCheckResult:
    end = datetime.now(UTC)
    statement = "checks/unknown_conditions.sql"
    unknown = [dict(row) for row in timescale.fetch(statement, {"begin": end - LOOK_BACK, "end": end})]
    return _result(unknown, AssetCheckSeverity.WARN, statement)


def _result(rows: list[dict[str, object]], severity: AssetCheckSeverity, statement: str) -> AssetCheckResult:
    """Passed where there is no row."""
    sample = [TableRecord({name: _shown(value) for name, value in row.items()}) for row in rows[:SAMPLE]]
    table = {"sample": MetadataValue.table(sample)} if sample else {}
    return AssetCheckResult(
        passed=not rows,
        severity=severity,
        metadata={
            "rows": len(rows),
            "sql": MetadataValue.md(f"```sql\n{(SQL_FOLDER / statement).read_text()}```"),
            **table,
        },
    )


def _shown(value: object) -> str | int | float | None:
    return value if isinstance(value, int | float) or value is None else str(value)


bar_checks = define_asset_job(
    "bar_checks",
    selection=AssetSelection.checks(bars_match_ticks, conditions_are_known),
    description="Compares the bars of the last hours with their ticks.",
)

check_bars = ScheduleDefinition(
    name="check_bars",
    job=bar_checks,
    cron_schedule="*/10 * * * *",
    default_status=DefaultScheduleStatus.RUNNING,
)
