"""Late trades restate bars, reconciliation finds what is wrong, and what can no longer be proved stays as it is."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.messages import decode, encode, trade

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def live(shared_stack: Stack) -> Iterator[Stack]:
    """The shared stack with both streams running."""
    streams = [shared_stack.start("stream", name) for name in ("tick", "ohlcv")]
    # They outlive a test.
    shared_stack.started.clear()
    yield shared_stack
    for stream in streams:
        stream.terminate()
    for stream in streams:
        output, _ = stream.communicate(timeout=60)
        assert stream.returncode == 0, output


def take_in(stack: Stack, *values: bytes) -> list[int]:
    """Send records; wait until both streams have committed them and no late minute waits. Their offsets."""
    offsets = stack.send(*values)
    [(sent_at,)] = stack.query("SELECT now()")
    eventually(
        lambda: (
            stack.query(
                "SELECT count(*) > 0 AND bool_and(ohlcv_next >= %s AND tick_next >= %s) "
                "AND min(tick_complete_until) > %s AND (SELECT count(*) FROM late_minute) = 0 "
                "FROM stream_position WHERE partition = 0",
                *(offsets[-1] + 1, offsets[-1] + 1, sent_at),
            )
            == [(True,)]
        ),
        120,
    )
    return offsets


def minute(days: float) -> int:
    """The start of a minute so many days ago, UNIX milliseconds."""
    return int((time.time() - days * 86_400) // 60 * 60_000)


def bar(stack: Stack, symbol: str) -> list[tuple]:
    return stack.query("SELECT open, high, low, close, volume, ticks FROM ohlcv_data WHERE symbol = %s", symbol)


def test_a_trade_days_late_makes_and_restates_its_bar(live: Stack):
    then = minute(3)
    take_in(live, encode(trade("LATE:NOW")))
    take_in(live, encode(trade("LATE:A", t=then + 30_000)))
    assert bar(live, "LATE:A") == [(10.0, 10.0, 10.0, 10.0, 1.0, 1)]
    sent = time.monotonic()
    take_in(live, encode(trade("LATE:A", t=then + 10_000, p=9.0), trade("LATE:A", t=then + 20_000, p=12.0)))
    print(f"restated within {time.monotonic() - sent:.1f} s")
    assert bar(live, "LATE:A") == [(9.0, 12.0, 9.0, 10.0, 3.0, 3)]
    changes = live.query(
        "SELECT cause, old_open, new_open, old_ticks, new_ticks FROM ohlcv_restatement WHERE symbol = 'LATE:A' "
        "ORDER BY restated_at"
    )
    assert changes == [("late trade", None, 10.0, None, 1), ("late trade", 10.0, 9.0, 1, 3)]
    eventually(lambda: live.query("SELECT FROM ohlcv_data WHERE symbol = 'LATE:A' AND is_final"), 30)


def test_a_bar_is_final_a_quarter_of_an_hour_after_its_minute(live: Stack):
    minutes_ago = [14, 17]
    take_in(live, *(encode(trade(f"FINAL:{ago}", t=minute(ago / 1440))) for ago in minutes_ago))
    eventually(lambda: live.query("SELECT FROM ohlcv_data WHERE symbol = 'FINAL:17' AND is_final"), 30)
    assert live.query("SELECT is_final FROM ohlcv_data WHERE symbol = 'FINAL:14'") == [(False,)]


def test_a_bar_that_lacks_ticks_is_restated_before_it_is_final(live: Stack):
    then = minute(1 / 24)
    take_in(live, *(encode(trade(symbol, t=then), trade(symbol, t=then, p=12.0)) for symbol in ("SHORT:A", "SHORT:B")))
    eventually(lambda: live.query("SELECT FROM ohlcv_data WHERE symbol = 'SHORT:A' AND is_final"), 30)
    whole = bar(live, "SHORT:A")
    with live.connect() as connection, connection.transaction():
        connection.execute("DELETE FROM ohlcv_data WHERE symbol = 'SHORT:B'")
        connection.execute(
            "UPDATE ohlcv_data SET is_final = FALSE, high = 10, close = 10, volume = 1, ticks = 1 "
            "WHERE symbol = 'SHORT:A'"
        )
    eventually(lambda: live.query("SELECT FROM ohlcv_data WHERE symbol = 'SHORT:A' AND is_final"), 30)
    eventually(lambda: live.query("SELECT FROM ohlcv_data WHERE symbol = 'SHORT:B' AND is_final"), 30)
    assert bar(live, "SHORT:A") == bar(live, "SHORT:B") == whole == [(10.0, 12.0, 10.0, 12.0, 2.0, 2)]


def test_what_changes_a_final_bar_is_late_whoever_writes_it(shared_stack: Stack):
    with shared_stack.connect() as connection, connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL stock_pipeline.cause TO 'build'")
        connection.execute(
            "INSERT INTO ohlcv_data (timestamp, symbol, open, high, low, close, ticks, volume) "
            "VALUES ('2026-01-02T03:04Z', 'BUILT', 1, 1, 1, 1, 1, 1)"
        )
        changes = "SELECT cause, old_close, new_close FROM ohlcv_restatement WHERE symbol = 'BUILT'"
        change = "UPDATE ohlcv_data SET close = close + 1, ticks = ticks + 1 WHERE symbol = 'BUILT'"
        connection.execute(change)
        assert connection.execute(changes).fetchall() == []
        connection.execute("UPDATE ohlcv_data SET is_final = TRUE WHERE symbol = 'BUILT'")
        connection.execute(change)
        assert connection.execute(changes).fetchall() == [("late trade", 2.0, 3.0)]


def test_a_trade_of_volume_only_moves_no_price_and_makes_no_bar(live: Stack):
    now = minute(0) - 120_000
    take_in(
        live,
        encode(
            trade("ODD", t=now, p=50.0, v=10.0, c=["1", "12"]),
            trade("EVEN", t=now, p=10.0, v=100.0, c=["1"]),
            trade("EVEN", t=now + 1, p=99.0, v=7.0, c=["12"]),
            trade("EVEN", t=now + 2, p=98.0, v=3.0, c=["16"]),
        ),
    )
    assert bar(live, "ODD") == []
    assert live.query("SELECT volume FROM tick_data WHERE symbol = 'ODD'") == [(10.0,)]
    assert bar(live, "EVEN") == [(10.0, 10.0, 10.0, 10.0, 107.0, 3)]
    assert live.query("SELECT asset_class, periods_per_year FROM instrument WHERE symbol = 'EVEN'") == [
        ("stock", 98280)
    ]


def reconcile(stack: Stack, *arguments: str) -> tuple[int, list[dict]]:
    done = stack.command("reconcile", *arguments)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_reconciliation_finds_and_repairs_every_kind_of_difference(live: Stack):
    first = minute(1) - 10 * 60_000
    names = ["high", "volume", "missing", "extra", "right"]
    take_in(live, *(encode(trade(f"CHECK:{name}", t=first + 60_000 * n)) for n, name in enumerate(names)))
    assert reconcile(live) == (0, [])
    with live.connect() as connection:
        for statement in (
            "UPDATE ohlcv_data SET high = high * 1.01 WHERE symbol = 'CHECK:high'",
            "UPDATE ohlcv_data SET volume = volume * (1 + 1e-8) WHERE symbol = 'CHECK:volume'",
            "UPDATE ohlcv_data SET volume = volume * (1 + 1e-12) WHERE symbol = 'CHECK:right'",
            "DELETE FROM ohlcv_data WHERE symbol = 'CHECK:missing'",
            "DELETE FROM tick_data WHERE symbol = 'CHECK:extra'",
        ):
            assert connection.execute(statement).rowcount == 1
    eventually(lambda: len(reconcile(live)[1]) == 4, 30)
    code, found = reconcile(live, "--from", datetime.fromtimestamp(first / 1000, UTC).isoformat())
    assert code == 1
    assert [line["symbol"] for line in found] == ["CHECK:high", "CHECK:volume", "CHECK:missing", "CHECK:extra"]
    assert reconcile(live, "--repair")[0] == 1
    assert reconcile(live) == (0, [])
    assert bar(live, "CHECK:high") == bar(live, "CHECK:missing") == [(10.0, 10.0, 10.0, 10.0, 1.0, 1)]
    assert bar(live, "CHECK:extra") == []
    causes = live.query("SELECT DISTINCT cause FROM ohlcv_restatement WHERE symbol LIKE 'CHECK:%%' AND old_open > 0")
    assert causes == [("correction",)]


def test_a_bar_whose_ticks_are_dropped_is_immutable(live: Stack):
    old = minute(400)
    take_in(live, encode(trade("OLD:BAR", t=old)))
    before = bar(live, "OLD:BAR")
    assert before
    with live.connect() as connection:
        connection.execute("SELECT drop_ticks(now() - INTERVAL '399 days')")
    assert live.query("SELECT count(*) FROM tick_data WHERE symbol = 'OLD:BAR'") == [(0,)]
    letters = len(live.records("stock-ticks-dead-letter"))
    again = trade("OLD:BAR", t=old, p=77.0, c=["1"])
    [offset] = take_in(live, encode(trade("OLD:NEW"), again))
    [(value, headers)] = live.records("stock-ticks-dead-letter")[letters:]
    assert decode(value)["data"] == [again]
    assert headers["offset"] == str(offset) and headers["index"] == "1"
    assert "ticks are kept" in headers["reason"]
    assert bar(live, "OLD:BAR") == before
    assert len(bar(live, "OLD:NEW")) == 1
    assert reconcile(live, "--from", (datetime.now(UTC) - timedelta(days=500)).isoformat()) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--from", "yesterday"], "--from: 'yesterday' is no time"),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "back to front"),
        (["--from", "2099-01-01"], "in the future"),
    ],
)
def test_a_wrong_range_is_explained(shared_stack: Stack, arguments: list[str], named: str):
    done = shared_stack.command("reconcile", *arguments)
    assert done.returncode == 1
    assert named in done.stderr


def test_an_unknown_eligibility_is_explained(shared_stack: Stack):
    done = shared_stack.command("reconcile", BAR_ELIGIBILITY="some")
    assert done.returncode == 1
    assert "bar_eligibility" in done.stderr and "consolidated" in done.stderr
