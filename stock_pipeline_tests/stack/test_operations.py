"""What docs/operations.md tells a person to type, typed."""

import re
import subprocess
import sys

import pytest

from stock_pipeline import PROJECT_ROOT
from stock_pipeline.local.downloads import cache_folder
from stock_pipeline_tests.conftest import Stack
from stock_pipeline_tests.messages import encode, trade

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

BLOCKS = re.findall(
    r"^```\n(.*?)^```$", (PROJECT_ROOT / "docs" / "operations.md").read_text(), re.MULTILINE | re.DOTALL
)


def block(word: str) -> str:
    """The one block of commands that holds a word."""
    [found] = [text for text in BLOCKS if word in text]
    return found


def type_in(stack: Stack, *blocks: str) -> None:
    """Run commands of the page, with this stack's ports and folders in the place of the default ones."""
    product = f"{sys.executable} -m stock_pipeline"
    places = {
        "localhost:9094": stack.kafka,
        "PGPORT=5433": f"PGPORT={stack.database_port}",
        ".stock_pipeline/": f"{stack.home}/",
        "~/.cache/stock_pipeline": str(cache_folder()),
        ".venv/bin/python": sys.executable,
        "make init-db": f"{product} init-db",
    }
    text = "\n".join(("set -euo pipefail", *blocks))
    for default, place in places.items():
        text = text.replace(default, place)
    done = subprocess.run(
        ["bash", "-c", text], env=stack.environment, cwd=stack.home.parent, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr


def stored(stack: Stack) -> list[tuple]:
    return stack.query("SELECT symbol, volume FROM tick_data ORDER BY volume")


def test_a_database_is_restored_and_the_streams_go_on_also_from_new_partitions(own: Stack):
    if not list(cache_folder().glob("timescaledb-*/usr/lib")):
        pytest.skip("a PostgreSQL of the system is used, which brings its own pg_dump")
    assert own.command("up").returncode == 0
    own.send(encode(trade("KEPT", v=1.0)))
    own.catch_up()
    backup = block("pg pg_dump")
    # What `pg` is, and who.
    client = backup.rpartition("pg pg_dump")[0]
    type_in(own, backup)
    own.send(encode(trade("AFTER", v=2.0)))
    own.catch_up()

    type_in(own, client, block("pg pg_restore"))
    assert stored(own) == [("KEPT", 1.0)]
    type_in(own, block("NewPartitions"))
    own.send(encode(trade("NEW", v=3.0)), partition=7)
    own.catch_up()
    assert stored(own) == [("KEPT", 1.0), ("AFTER", 2.0), ("NEW", 3.0)]
    assert own.query("SELECT symbol, volume FROM ohlcv_data ORDER BY volume") == stored(own)
    done = own.command("reconcile")
    assert (done.returncode, done.stdout) == (0, "")
