"""Asset checks that one query answers together: it gives a row for whatever breaks a rule, with the check's name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    MarkdownMetadataValue,
    MetadataValue,
    TableRecord,
    multi_asset_check,
)
from psycopg import sql
from psycopg.rows import DictRow

from stock_pipeline.defs.table_report import shown
from stock_pipeline.resources.timescale import TimescaleResource
from stock_pipeline.sql_files import SQL_FOLDER, load_sql

SAMPLE = 10
"""Most rows shown."""

OF_THE_BATCH = {"check", "found", "place"}
"""Columns that say nothing of a row itself."""

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
        values: gives its binds, beside `begin` and `end`.
    """

    asset: str
    statement: str
    rules: Sequence[Rule]
    look_back: timedelta
    tables: Mapping[str, str] = field(default_factory=dict)
    values: Callable[[], Mapping[str, Any]] = dict

    def violations(self, connection: psycopg.Connection[DictRow]) -> tuple[list[DictRow], str]:
        """Rows of `check`, how many it `found` and at most SAMPLE of what breaks it; and the query, for a person."""
        end = datetime.now(UTC)
        # Whole minutes and, where it is days, whole days: a bar is looked at as a whole.
        begin = (end - self.look_back).replace(second=0, microsecond=0)
        if self.look_back >= timedelta(days=1):
            begin = begin.replace(hour=0, minute=0)
        tables = {name: sql.Identifier(table) for name, table in self.tables.items()}
        statement = load_sql(f"checks/{self.statement}").format(**tables)
        values = {"begin": begin, "end": end, **self.values()}
        sampled = load_sql("queries/sample_of_violations.sql").format(violations=statement)
        rows = connection.execute(sampled, values | {"sample": SAMPLE}).fetchall()
        return rows, as_run(connection, statement, values)


def as_run(connection: psycopg.Connection[Any], statement: sql.SQL | sql.Composed, values: Mapping[str, Any]) -> str:
    """The text of a query with its values in it."""
    return psycopg.ClientCursor(connection).mogrify(statement, values)


def batch_checks(batch: Batch) -> AssetChecksDefinition:
    """The asset checks of a batch, in one step."""

    @multi_asset_check(
        name=f"{batch.statement.removesuffix('.sql')}_of_{batch.asset}",
        specs=[
            AssetCheckSpec(
                rule.name,
                asset=batch.asset,
                description=f"{rule.severity.value}: {rule.reason}",
                metadata=sql_metadata(batch.statement),
            )
            for rule in batch.rules
        ],
    )
    def check(timescale: TimescaleResource) -> Iterator[AssetCheckResult]:
        with timescale.connect() as connection:
            rows, query = batch.violations(connection)
        for rule in batch.rules:
            mine = [row for row in rows if row["check"] == rule.name]
            yield result(batch.asset, rule, mine, query, mine[0]["found"] if mine else 0)

    return check


def result(
    asset: str,
    rule: Rule,
    rows: Sequence[Mapping[str, Any]],
    query: str | None = None,
    found: int | None = None,
    figures: Mapping[str, float | None] | None = None,
) -> AssetCheckResult:
    """Passed where nothing was found.

    Args:
        rows: what was found, or a sample of it.
        query: what found it, where it was one; shown where the check fails, for a person to run.
        found: how many there are; None: as many as rows.
        figures: numbers to plot, whether it passes or not.
    """
    found = len(rows) if found is None else found
    metadata: dict[str, Any] = {"rows": found, **(figures or {})}
    if rows:
        # Dagster wants the same columns in every row.
        columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in OF_THE_BATCH]
        sample = [TableRecord({name: shown(row.get(name)) for name in columns}) for row in rows[:SAMPLE]]
        metadata["sample"] = MetadataValue.table(sample)
    if found and query:
        metadata["sql"] = as_sql(query)
    return AssetCheckResult(
        asset_key=asset,
        check_name=rule.name,
        passed=not found,
        severity=rule.severity,
        description=f"{found:,} found. {rule.reason}" if found else None,
        metadata=metadata,
    )


def sql_metadata(statement: str) -> dict[str, MarkdownMetadataValue]:
    """What the definition of a check shows of its statement in `sql/checks`."""
    return {"sql": as_sql((SQL_FOLDER / "checks" / statement).read_text())}


def as_sql(text: str) -> MarkdownMetadataValue:
    return MetadataValue.md(f"```sql\n{text.rstrip()}\n```")
