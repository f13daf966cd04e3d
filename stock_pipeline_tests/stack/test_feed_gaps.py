"""Outages of the feed become intervals, bars say how much of their minute they cover, repeated frames are listed."""

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.feed import Feed, frame
from stock_pipeline_tests.messages import encode, trade
from stock_pipeline_tests.stack.test_producer import finish, start_producer

pytestmark = pytest.mark.stack


def gaps(stack: Stack, since: datetime) -> list[tuple]:
    return stack.query(
        "SELECT symbol, cause, extract(epoch FROM ended - started)::float FROM feed_gap WHERE started >= %s "
        "ORDER BY started",
        since,
    )


def told(stack: Stack, since: datetime, count: int) -> list[tuple]:
    """The gaps since then, once there are so many and all but the last have ended."""
    eventually(lambda: len(found := gaps(stack, since)) >= count and all(row[2] is not None for row in found[:-1]), 30)
    return gaps(stack, since)


def test_lost_connections_rejections_and_down_times_are_intervals(stack: Stack, feed: Feed):
    began = datetime.now(UTC)
    producer = start_producer(stack, feed, SYMBOLS="GAP:A,GAP:B")
    eventually(lambda: len(feed.received) == 2, 30)
    feed.send(frame(trade("GAP:A")))
    feed.send('{"type":"error","msg":"Subscribing to too many symbols: GAP:B"}')
    eventually(lambda: [row[:2] for row in gaps(stack, began)][-1:] == [("GAP:B", "subscription rejected")], 30)
    time.sleep(1)
    feed.send(frame(trade("GAP:B")))
    closed = time.time()
    feed.connections[-1].close()
    eventually(lambda: len(feed.received) == 4, 60)
    away = time.time() - closed

    beat = stack.home / "run" / "producer.json"
    os.kill(producer.pid, signal.SIGKILL)
    producer.wait()
    complete_until = json.loads(beat.read_text())["figures"]["complete_until"]
    time.sleep(3)
    again = start_producer(stack, feed, SYMBOLS="GAP:A,GAP:B")
    eventually(lambda: len(feed.received) == 6, 60)
    back = time.time()
    finish(again)

    found = told(stack, began, 4)
    kinds = [row[:2] for row in found if row[1] != "producer down" or row[2] is None or row[2] > 1]
    assert ("GAP:B", "subscription rejected") in kinds
    [(_, _, lost)] = [row for row in found if row[1] == "disconnected"]
    assert 0 <= lost <= away + 2
    down = [row for row in found if row[1] == "producer down"]
    assert down[-1][2] is None, "from the stop on nobody listens"
    dead = down[-2][2]
    assert abs(dead - (back - complete_until)) < 2


def test_bars_carry_the_seconds_in_which_the_feed_was_away(stack: Stack):
    minute = (datetime.now(UTC) - timedelta(days=5)).replace(second=0, microsecond=0)
    at = int(minute.timestamp() * 1000)
    with stack.connect() as connection:
        # Two that overlap, one of another symbol, and one that ends where the minute begins: 30 s of the minute.
        for symbol, begin, end in ((None, -20, 20), ("AWAY:A", 10, 30), ("AWAY:B", 0, 60), (None, -90, -60)):
            connection.execute(
                "INSERT INTO feed_gap (symbol, started, ended, cause) VALUES (%s, %s, %s, 'silent')",
                [symbol, minute + timedelta(seconds=begin), minute + timedelta(seconds=end)],
            )
    times = {"AWAY:A": [at, at + 60_000], "AWAY:B": [at, at - 60_000]}
    stack.send(encode(*[trade(symbol, t=t) for symbol, found in times.items() for t in found]))
    stack.catch_up()
    rows = stack.query("SELECT symbol, timestamp, gap_seconds FROM ohlcv_data WHERE symbol LIKE 'AWAY:%%'")
    seconds = {(symbol, int((time - minute).total_seconds())): away for symbol, time, away in rows}
    assert seconds == {("AWAY:A", 0): 30.0, ("AWAY:A", 60): 0.0, ("AWAY:B", 0): 60.0, ("AWAY:B", -60): 20.0}

    # A gap that becomes known later changes final bars, too.
    with stack.connect() as connection:
        later = minute + timedelta(seconds=90)
        connection.execute(
            "INSERT INTO feed_gap (symbol, started, ended, cause) VALUES ('AWAY:A', %s, %s, 'silent')",
            [later, later + timedelta(seconds=10)],
        )
    stack.catch_up("ohlcv")
    assert stack.query("SELECT sum(gap_seconds) FROM ohlcv_data WHERE symbol = 'AWAY:A'") == [(40.0,)]


def test_a_gap_that_began_after_the_transaction_covers_nothing_yet(shared_stack: Stack):
    with shared_stack.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("DELETE FROM feed_gap")
        connection.execute(
            "INSERT INTO feed_gap (symbol, started, cause) VALUES ('SOON', now() + interval '1 second', 'silent')"
        )
        seconds = "SELECT seconds_away('SOON', now() - interval '1 minute', now() + interval '1 minute')"
        assert connection.execute(seconds).fetchone() == (0.0,)


def test_what_comes_again_after_a_reconnect_is_listed_and_kept(stack: Stack):
    """Frames before an outage, then the newest of them once more; equal trades within a frame are real."""
    begin = datetime.now(UTC) - timedelta(days=4)
    at = int(begin.timestamp() * 1000)

    def message(number: int) -> bytes:
        same = trade("TWICE:A", t=at + number, p=10.0 + number)
        return encode(same, same)

    received = [at + ms for ms in (0, 100, 200, 10_100, 10_200)]
    offsets = stack.send(*map(message, (0, 1, 2, 2, 3)), times=received)
    with stack.connect() as connection:
        connection.execute(
            "INSERT INTO feed_gap (started, ended, cause) VALUES (%s, %s, 'disconnected')",
            [begin + timedelta(seconds=1), begin + timedelta(seconds=10)],
        )
    stack.catch_up()
    stack.catch_up("ohlcv")
    found = stack.query("SELECT seq, original_seq FROM suspected_duplicate WHERE symbol = 'TWICE:A' ORDER BY seq")
    place = [offset * 2**22 for offset in offsets]
    assert found == [(place[3], place[2]), (place[3] + 1, place[2] + 1)]
    assert stack.query("SELECT count(*) FROM tick_data WHERE symbol = 'TWICE:A'") == [(10,)]
    # They were received in time, but the stream is days ahead of them.
    assert stack.query("SELECT sum(ticks)::int FROM ohlcv_data WHERE symbol = 'TWICE:A'") == [(10,)]
    assert stack.command("reconcile").returncode == 0
