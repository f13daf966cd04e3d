"""Ticks and bars are compared only where both streams have committed the same trades."""

import time

import pytest

from stock_pipeline_tests.conftest import Stack
from stock_pipeline_tests.messages import encode, trade

pytestmark = pytest.mark.stack

DAY = 86_400_000


def differences(stack: Stack) -> str:
    done = stack.command("reconcile")
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_a_stream_that_is_ahead_makes_no_difference(stack: Stack):
    stack.catch_up()
    yesterday = time.time_ns() // 1_000_000 - DAY
    stack.send(encode(trade("AHEAD:TICKS", t=yesterday)))
    stack.catch_up("tick")
    assert differences(stack) == ""
    stack.send(encode(trade("AHEAD:BARS")))
    stack.catch_up("ohlcv")
    bars = stack.query("SELECT symbol FROM ohlcv_data WHERE symbol LIKE 'AHEAD:%%' ORDER BY 1")
    assert bars == [("AHEAD:BARS",), ("AHEAD:TICKS",)]
    assert differences(stack) == ""
    stack.catch_up("tick")
    assert differences(stack) == ""
