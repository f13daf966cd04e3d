"""The columns of tables and views, read from sql/: names, types, null or not, comments."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import sqlglot
from sqlglot import exp

from stock_pipeline.sql_files import SQL_FOLDER, schema_files

STATEMENT = re.compile(r"^(CREATE TABLE|CREATE OR REPLACE VIEW|COMMENT ON)", re.MULTILINE)


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    nullable: bool
    comment: str | None


VIEW_TYPES = {"timestamp": "timestamptz", "from_timestamp": "timestamptz", "symbol": "text"}
"""Types of a view's columns, which its statement does not say; others are double precision."""


@cache
def table_columns(table: str) -> tuple[Column, ...]:
    """The columns of a table or view in their order.

    Raises:
        KeyError: no file of sql/ creates such a table or view.
    """
    for name in schema_files():
        statements = _statements(name)
        for create in (statement for statement in statements if isinstance(statement, exp.Create)):
            if create.kind == "TABLE" and create.this.this.name == table:
                return tuple(_columns(create, _comments(statements, table)))
            if create.kind == "VIEW" and create.this.name == table:
                comments = _comments(statements, table)
                names = create.expression.named_selects
                return tuple(
                    Column(name, VIEW_TYPES.get(name, "double precision"), True, comments.get(name)) for name in names
                )
    raise KeyError(table)


@cache
def _statements(name: str) -> list[exp.Expr]:
    """The statements of a file that create tables and views or comment on them; each is a paragraph of its own."""
    paragraphs = (SQL_FOLDER / name).read_text().split("\n\n")
    relevant = [text for text in paragraphs if STATEMENT.search(text)]
    return [statement for text in relevant for statement in sqlglot.parse(text, dialect="postgres") if statement]


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
