"""Asset checks that one query answers together: it gives a row for whatever breaks a rule, with the check's name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    MetadataValue,
    TableRecord,
    multi_asset_check,
)
from psycopg import sql
from psycopg.rows import DictRow

from stock_pipeline.database import SQL_FOLDER, load_sql
from stock_pipeline.defs.table_report import shown
from stock_pipeline.resources.timescale import TimescaleResource

SAMPLE = 10
"""Most rows shown."""

ERROR, WARN = AssetCheckSeverity.ERROR, AssetCheckSeverity.WARN


@dataclass(frozen=True)
class Rule:
    """One check of a batch.

    Attributes:
        reason: what holds where it passes, and why it is an error or a warning where it does not.
    """

    name: str
    severity: AssetCheckSeverity
    reason: str


@dataclass(frozen=True)
class Batch:
    """Checks of an asset by one statement of `sql/checks`.

    Attributes:
        look_back: what is looked at, to now.
        tables: identifiers of the statement.
        values: its binds, beside `begin` and `end`.
    """

    asset: str
    statement: str
    rules: Sequence[Rule]
    look_back: timedelta
    tables: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def violations(self, connection: psycopg.Connection[DictRow]) -> list[DictRow]:
        """Rows of `check` and what breaks it."""
        end = datetime.now(UTC)
        # Whole days, where it is days: a bar of a day is looked at as a whole.
        begin = end - self.look_back
        if self.look_back >= timedelta(days=1):
            begin = begin.replace(hour=0, minute=0, second=0, microsecond=0)
        tables = {name: sql.Identifier(table) for name, table in self.tables.items()}
        statement = load_sql(f"checks/{self.statement}").format(**tables)
        return connection.execute(statement, {"begin": begin, "end": end, **self.values}).fetchall()


def batch_checks(batch: Batch) -> AssetChecksDefinition:
    """The asset checks of a batch, in one step."""

    @multi_asset_check(
        name=f"{batch.statement.removesuffix('.sql')}_of_{batch.asset}",
        specs=[
            AssetCheckSpec(rule.name, asset=batch.asset, description=f"{rule.severity.value}: {rule.reason}")
            for rule in batch.rules
        ],
    )
    def check(timescale: TimescaleResource) -> Iterator[AssetCheckResult]:
        with timescale.connect() as connection:
            rows = batch.violations(connection)
        for rule in batch.rules:
            mine = [row for row in rows if row["check"] == rule.name]
            yield result(batch.asset, rule, mine, batch.statement)

    return check


def result(
    asset: str,
    rule: Rule,
    rows: Sequence[Mapping[str, Any]],
    statement: str | None = None,
    figures: Mapping[str, float | None] | None = None,
) -> AssetCheckResult:
    """Passed where there is no row.

    Args:
        statement: file of `sql/checks`, where it was one; its text is shown where the check fails, for a person to run.
        figures: numbers to plot, whether it passes or not.
    """
    metadata: dict[str, Any] = {"rows": len(rows), **(figures or {})}
    if rows:
        # Dagster wants the same columns in every row.
        columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "check"]
        sample = [TableRecord({name: shown(row.get(name)) for name in columns}) for row in rows[:SAMPLE]]
        metadata["sample"] = MetadataValue.table(sample)
    if rows and statement:
        metadata["sql"] = MetadataValue.md(f"```sql\n{(SQL_FOLDER / 'checks' / statement).read_text()}```")
    return AssetCheckResult(
        asset_key=asset,
        check_name=rule.name,
        passed=not rows,
        severity=rule.severity,
        description=f"{len(rows)} found. {rule.reason}" if rows else None,
        metadata=metadata,
    )
