"""Where a secret must not be seen: files, arguments of processes, Dagster's events, Spark's pages."""

import json
from collections.abc import Iterator, Mapping
from urllib.error import URLError
from urllib.request import urlopen

import psutil
from psycopg import sql

from stock_pipeline_tests.faults.pipeline import STREAMS, Pipeline

DATA = ("timescaledb", "kafka", "credentials.json")
"""What of home holds no text of ours, and what is there to hold the passwords."""

SPARK_PAGES = ("environment/", "SQL/", "StreamingQuery/", "api/v1/applications", "jobs/")

TEXTS = """
SELECT table_name, column_name
FROM information_schema.columns
WHERE table_schema = 'public' AND data_type IN ('text', 'character varying')
"""


def leaks(pipeline: Pipeline, secrets: Mapping[str, str]) -> list[str]:
    """Each place that shows a secret.

    Args:
        secrets: values by what they are.
    """
    passwords = json.loads((pipeline.stack.home / "credentials.json").read_text())
    known = {**secrets, **{f"password of {role}": password for role, password in passwords.items()}}
    found = [
        f"{place}: {name}"
        for place, text in (*_files(pipeline), *_arguments(), *_spark(pipeline))
        for name, secret in known.items()
        if secret in text
    ]
    return found + list(_dagster(pipeline, known))


def _files(pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    home = pipeline.stack.home
    for path in [home.parent / "run.log", *home.rglob("*")]:
        if path.is_file() and path.relative_to(home.parent).parts[1:2] not in [(name,) for name in DATA]:
            yield str(path), path.read_text(errors="replace")


def _arguments() -> Iterator[tuple[str, str]]:
    for process in psutil.process_iter(["cmdline"]):
        yield f"arguments of {process.pid}", " ".join(process.info["cmdline"] or ())


def _spark(pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    for name in STREAMS:
        address = pipeline.record(name)["links"]["spark_ui"]
        for page in SPARK_PAGES:
            try:
                with urlopen(f"{address}/{page}", timeout=120) as answer:
                    yield f"{address}/{page}", answer.read().decode()
            except URLError as error:
                yield f"{address}/{page}", f"{error}"


def _dagster(pipeline: Pipeline, secrets: Mapping[str, str]) -> Iterator[str]:
    with pipeline.stack.connect(database="dagster") as connection:
        for table, column in connection.execute(TEXTS).fetchall():
            for name, secret in secrets.items():
                query = sql.SQL("SELECT count(*) FROM {} WHERE strpos({}, %s) > 0").format(
                    sql.Identifier(table), sql.Identifier(column)
                )
                [(count,)] = connection.execute(query, [secret]).fetchall()
                if count:
                    yield f"{count} rows of Dagster's {table}.{column}: {name}"
