"""Streams whose database or broker goes away wait, say so, and go on when it is back."""

import json

import psutil
import pytest

from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.messages import encode, trade

pytestmark = pytest.mark.stack


def kill(stack: Stack, name: str) -> None:
    found = {line["name"]: line["pid"] for line in json.loads(stack.command("status", "--json").stdout)}
    psutil.Process(found[name]).kill()


def is_up_to_date(stack: Stack, symbol: str, count: int) -> bool:
    return stack.query(
        "SELECT (SELECT count(*) FROM tick_data WHERE symbol = %s) = %s, "
        "(SELECT sum(ticks) FROM ohlcv_data WHERE symbol = %s) = %s",
        *(symbol, count) * 2,
    ) == [(True, True)]


def test_streams_outlive_database_and_broker(stack: Stack):
    streams = [stack.start("stream", name) for name in ("tick", "ohlcv")]
    stack.send(encode(trade("OUTAGE")))
    eventually(lambda: is_up_to_date(stack, "OUTAGE", 1), 120)

    kill(stack, "timescaledb")
    for number in range(20):
        stack.send(encode(trade("OUTAGE", p=20.0 + number)), partition=number % 4)
    for name in ("tick-stream", "ohlcv-stream"):
        heartbeat = json.loads((stack.home / "run" / f"{name}.json").read_text())
        assert psutil.pid_exists(heartbeat["pid"])
    assert stack.command("up").returncode == 0
    eventually(lambda: is_up_to_date(stack, "OUTAGE", 21), 90)

    kill(stack, "kafka")
    assert stack.command("up").returncode == 0
    stack.send(encode(*[trade("OUTAGE")] * 3))
    eventually(lambda: is_up_to_date(stack, "OUTAGE", 24), 120)

    for stream in streams:
        assert stream.poll() is None
        stream.terminate()
        output, _ = stream.communicate(timeout=60)
        assert stream.returncode == 0, output
        assert "(db_url) cannot be reached" in output or "the database is away" in output
