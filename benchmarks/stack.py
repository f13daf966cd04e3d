"""A copy of the product for a benchmark alone, in a temporary folder, deleted at the end."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.sql import Identifier

from stock_pipeline.local.timescaledb import SUPERUSER
from stock_pipeline.settings import Settings, load_settings
from stock_pipeline_tests.conftest import Stack, on_free_ports


@contextmanager
def own_stack() -> Iterator[Stack]:
    """Kafka and TimescaleDB; the settings of this process are theirs."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
        stack = on_free_ports(Path(folder) / "home")
        os.environ.update(stack.environment)
        load_settings.cache_clear()
        try:
            up = stack.command("up")
            assert up.returncode == 0, up.stderr
            yield stack
        finally:
            assert stack.command("down", "--wipe").returncode == 0


def tables(way: str) -> tuple[Identifier, Identifier]:
    """Where a way writes its ticks and its bars: all but the usual one write to the product's own tables."""
    if way == "usual":
        return Identifier("benchmark", "usual_tick"), Identifier("benchmark", "usual_bar")
    return Identifier("tick_data"), Identifier("ohlcv_data")


def create_usual_tables(settings: Settings) -> None:
    with psycopg.connect(settings.conninfo("owner"), autocommit=True) as connection:
        connection.execute((Path(__file__).parent / "tables.sql").read_bytes())


def as_superuser(settings: Settings, statement: str) -> None:
    """Execute what only a superuser may, outside of a transaction."""
    password = json.loads(settings.credentials_path.read_text())["superuser"]
    with psycopg.connect(settings.db_url, user=SUPERUSER, password=password, autocommit=True) as connection:
        connection.execute(statement.encode())
