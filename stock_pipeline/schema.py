"""The columns of the tables, read from sql/schema: names, types, null or not, comments."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import sqlglot
from sqlglot import exp

from stock_pipeline.database import SQL_FOLDER


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    nullable: bool
    comment: str | None


@cache
def table_columns(table: str) -> tuple[Column, ...]:
    """The columns of a table in their order.

    Raises:
        KeyError: no file of sql/schema creates such a table.
    """
    for path in sorted((SQL_FOLDER / "schema").glob("*.sql")):
        statements = [statement for statement in sqlglot.parse(path.read_text(), dialect="postgres") if statement]
        for create in (statement for statement in statements if isinstance(statement, exp.Create)):
            if create.kind == "TABLE" and create.this.this.name == table:
                return tuple(_columns(create, _comments(statements, table)))
    raise KeyError(table)


def _columns(create: exp.Create, comments: dict[str, str]) -> list[Column]:
    keys = {name.name for key in create.find_all(exp.PrimaryKey) for name in key.expressions}
    columns = []
    for column in create.find_all(exp.ColumnDef):
        constraints = {type(constraint.kind) for constraint in column.constraints}
        nullable = exp.NotNullColumnConstraint not in constraints and column.name not in keys
        kind = column.args["kind"].sql(dialect="postgres").lower()
        columns.append(Column(column.name, kind, nullable, comments.get(column.name)))
    return columns


def _comments(statements: Sequence[exp.Expr], table: str) -> dict[str, str]:
    return {
        comment.this.name: comment.expression.name
        for comment in statements
        if isinstance(comment, exp.Comment) and comment.args["kind"] == "COLUMN" and comment.this.table == table
    }
