"""The statements of sql/."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import psycopg
from psycopg import sql

from stock_pipeline import PROJECT_ROOT

SQL_FOLDER = PROJECT_ROOT / "sql"


@cache
def load_sql(name: str) -> sql.SQL:
    """The text of `sql/<name>`."""
    # psycopg types SQL as literal strings; the project's own files are as trustworthy.
    return sql.SQL((SQL_FOLDER / name).read_text())  # pyright: ignore[reportArgumentType]


def fetch_value(connection: psycopg.Connection, name: str, values: Mapping[str, object] | None = None) -> Any:
    """The first column of the first row of `sql/<name>`; None where there is no row."""
    row = connection.execute(load_sql(name), values).fetchone()
    return row[0] if row else None


def schema_files() -> list[str]:
    """Names of the files of tables and views in the order in which they are applied, which is that of their numbers."""
    paths = [*(SQL_FOLDER / "schema").glob("*.sql"), *(SQL_FOLDER / "views").glob("*.sql")]
    return [str(path.relative_to(SQL_FOLDER)) for path in sorted(paths, key=lambda path: path.name)]
