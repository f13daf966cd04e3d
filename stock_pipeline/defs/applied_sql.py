"""Assets whose materialisation applies a file of sql/: views, and tables that a file fills.

`stock-pipeline init-db` applies the same files. Dagster does it where an asset is missing, and when its file has
changed.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from dagster import (
    AssetsDefinition,
    AssetSelection,
    AutomationCondition,
    AutomationConditionSensorDefinition,
    DefaultSensorStatus,
    MaterializeResult,
    asset,
)

from stock_pipeline.database import apply_file
from stock_pipeline.defs.tables import Lineage, table_metadata
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.sql_files import SQL_FOLDER

IDLE: AutomationCondition[Any] = ~AutomationCondition.in_progress() & ~AutomationCondition.execution_failed()


def when_missing_or(happened: AutomationCondition[Any]) -> AutomationCondition[Any]:
    """Where there is no materialisation, and each time that something has happened."""
    missing: AutomationCondition[Any] = AutomationCondition.missing()
    return (missing | happened.since_last_handled()) & IDLE


def applied_sql(
    name: str,
    files: Sequence[str],
    group: str,
    kinds: set[str],
    deps: Sequence[str],
    description: str,
    lineage: Lineage | None = None,
) -> AssetsDefinition:
    """An asset that is there once `sql/<file>` is applied, for each of the files."""
    texts = [(SQL_FOLDER / file).read_bytes() for file in files]

    @asset(
        name=name,
        deps=deps,
        group_name=group,
        kinds=kinds,
        description=description,
        code_version=hashlib.sha256(b"".join(texts)).hexdigest()[:12],
        automation_condition=when_missing_or(AutomationCondition.code_version_changed()),
        metadata={**table_metadata(name, lineage=lineage), "sql": list(files)},
    )
    def apply(timescale: TimescaleResource) -> MaterializeResult[Any]:
        with timescale.connect("owner") as connection:
            for file in files:
                apply_file(connection, file)
        return MaterializeResult()

    return apply


automation = AutomationConditionSensorDefinition(
    "automation",
    target=AssetSelection.all(),
    minimum_interval_seconds=60,
    default_status=DefaultSensorStatus.RUNNING,
    description="Applies SQL files where their asset is missing or they have changed, and brings market sessions.",
)
