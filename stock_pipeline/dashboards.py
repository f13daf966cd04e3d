"""The dashboards of grafana/: their queries as Grafana asks them, what these read, and what their panels lack."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import sqlglot
from psycopg.postgres import types
from psycopg.rows import tuple_row
from sqlglot import exp

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.errors import BadDashboard, first_line

DASHBOARDS = PROJECT_ROOT / "grafana" / "dashboards"

LAST_HOUR = timedelta(hours=1)
"""What a dashboard shows where nothing else is chosen."""

NUMBERS = {types[name].oid for name in ("int2", "int4", "int8", "float4", "float8", "numeric")}

TIMES = {types["timestamptz"].oid}

NEEDED: Mapping[str, Mapping[str, set[int]]] = {
    "timeseries": {"time": TIMES},
    "candlestick": {"time": TIMES, "open": NUMBERS, "high": NUMBERS, "low": NUMBERS, "close": NUMBERS},
    "annotation": {"time": TIMES, "timeEnd": TIMES, "text": {types["text"].oid}},
}
"""The columns that a type of panel needs, with the types that they may have."""


@dataclass(frozen=True)
class Query:
    """A statement, and the panel, annotation or variable that it belongs to.

    Attributes:
        kind: the panel's type, `annotation` or `variable`.
    """

    owner: str
    kind: str
    text: str


@dataclass(frozen=True)
class Problem:
    """A panel, annotation or variable that does not work, and why."""

    owner: str
    error: str


class Dashboard:
    """A file of grafana/dashboards."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            BadDashboard: it is no JSON, or lacks what every dashboard has.
        """
        self.path = path
        try:
            content = json.loads(path.read_text())
            self.uid: str = content["uid"]
            self.description: str = content["description"]
            self.panels: list[dict[str, Any]] = content["panels"]
            self.annotations: list[dict[str, Any]] = content["annotations"]["list"]
            self.variables: list[dict[str, Any]] = content["templating"]["list"]
            self.queries = list(self._queries())
        except ValueError as error:
            raise BadDashboard(f"{path} is no JSON: {error}") from error
        except (KeyError, TypeError) as error:
            raise BadDashboard(f"{path} is no dashboard: {error!r}") from error

    def _queries(self) -> Iterator[Query]:
        for panel in self.panels:
            for target in panel["targets"]:
                yield Query(panel["title"], panel["type"], target["rawSql"])
        for annotation in self.annotations:
            yield Query(annotation["name"], "annotation", annotation["target"]["rawSql"])
        for variable in self.variables:
            if variable["type"] == "query":
                yield Query(variable["name"], "variable", variable["query"])

    @cached_property
    def defaults(self) -> dict[str, str]:
        """The values that the file itself chooses, by variable."""
        return {v["name"]: v["current"]["value"] for v in self.variables if v["type"] != "query"}

    def sources(self) -> set[str]:
        """Names of the tables, views and functions that the queries read.

        Raises:
            BadDashboard: a query is no SQL, or has an unknown variable.
        """
        now = datetime.now(UTC)
        variables = {variable["name"]: "1" for variable in self.variables}
        names = set()
        for query in self.queries:
            try:
                statement = sqlglot.parse_one(as_grafana_asks(query.text, now, now, variables), dialect="postgres")
            except (BadDashboard, sqlglot.ParseError) as error:
                raise BadDashboard(f"{self.path}: {query.owner!r}: {first_line(error)}") from error
            tables = {table.name for table in statement.find_all(exp.Table) if table.name and not table.db}
            names |= tables | {call.name for call in statement.find_all(exp.Anonymous)}
            names -= {part.alias for part in statement.find_all(exp.CTE)}
        return names

    def problems(self, connection: psycopg.Connection[Any]) -> Iterator[Problem]:
        """What does not work over the last hour, with the default of each variable."""
        variables = dict(self.defaults)
        for query in self.queries:
            if query.kind == "variable":
                try:
                    variables[query.owner] = next(iter(_ask(connection, query.text, variables).fetchone() or [""]))
                except (BadDashboard, psycopg.Error) as error:
                    yield Problem(query.owner, first_line(error))
                    return
        for owner in (*self.panels, *self.annotations):
            name, kind = (owner["title"], owner["type"]) if "title" in owner else (owner["name"], "annotation")
            columns: dict[str, int] = {}
            try:
                for query in self.queries:
                    if (query.owner, query.kind) == (name, kind):
                        answer = _ask(connection, query.text, variables).description or ()
                        columns |= {column.name: column.type_code for column in answer}
            except (BadDashboard, psycopg.Error) as error:
                yield Problem(name, first_line(error))
            else:
                yield from (Problem(name, lack) for lack in _lacks(owner, kind, columns))


def dashboards() -> list[Dashboard]:
    """All of them.

    Raises:
        BadDashboard: a file is none.
    """
    return [Dashboard(path) for path in sorted(DASHBOARDS.glob("*.json"))]


def as_grafana_asks(text: str, begin: datetime, end: datetime, variables: Mapping[str, str]) -> str:
    """A statement with macros and variables filled in as Grafana does it.

    Raises:
        BadDashboard: it has a macro or variable that is not known.
    """
    first, last = (f"'{time:%Y-%m-%dT%H:%M:%S.%fZ}'" for time in (begin, end))
    text = text.replace("$__timeFrom()", first).replace("$__timeTo()", last)
    text = re.sub(r"\$__timeFilter\((.*?)\)", rf"\1 BETWEEN {first} AND {last}", text)
    for name in re.findall(r"\$\{?(\w+)", text):
        if name not in variables:
            raise BadDashboard(f"${name} is no variable and no macro")
    return with_variables(text, variables)


def with_variables(text: str, variables: Mapping[str, str]) -> str:
    """A statement with variables filled in, as the browser sends it."""

    def value(found: re.Match[str]) -> str:
        name = found["quoted"] or found["plain"]
        known = variables.get(name, found[0])
        return "'" + known.replace("'", "''") + "'" if found["quoted"] else known

    return re.sub(r"\$\{(?P<quoted>\w+):sqlstring\}|\$(?P<plain>\w+)", value, text)


def _ask(connection: psycopg.Connection[Any], text: str, variables: Mapping[str, str]) -> psycopg.Cursor[Any]:
    now = datetime.now(UTC)
    statement = as_grafana_asks(text, now - LAST_HOUR, now, variables)
    with connection.transaction():
        return connection.cursor(row_factory=tuple_row).execute(statement.encode())


def _lacks(owner: Mapping[str, Any], kind: str, columns: Mapping[str, int]) -> Iterable[str]:
    """The columns that the type of a panel needs, or its options name, and its queries do not give."""
    for name, allowed in NEEDED.get(kind, {}).items():
        if name not in columns:
            yield f"no column {name!r}, which every {kind} needs"
        elif columns[name] not in allowed:
            yield f"column {name!r} is of type {types[columns[name]].name}, which no {kind} can show"
    if kind in ("timeseries", "stat") and not NUMBERS & set(columns.values()):
        yield f"no column with numbers, which every {kind} needs"
    overrides = owner.get("fieldConfig", {}).get("overrides", ())
    named = {item["matcher"]["options"] for item in overrides if item["matcher"]["id"] == "byName"}
    options = owner.get("options", {})
    named |= {item["displayName"] for item in options.get("sortBy", ())} | set(options.get("fields", {}).values())
    for name in sorted(named - set(columns)):
        yield f"no column {name!r}, which its options name"
