"""Outages of the feed become gaps: of all symbols or of one, with start, end and cause, whatever ends the producer."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import psycopg
import pytest

from stock_pipeline.ingest import gaps as module
from stock_pipeline.ingest.finnhub import FinnhubClient
from stock_pipeline.ingest.gaps import FeedWatch, Gap, GapJournal, journal_path, period_at, tell_gaps
from stock_pipeline.local.component import free_port
from stock_pipeline.settings import Settings
from stock_pipeline_tests.conftest import eventually
from stock_pipeline_tests.feed import Feed

BTC = "BINANCE:BTCUSDT"
EURO = "OANDA:EUR_USD"
T = datetime(2026, 11, 18, 12, tzinfo=UTC).timestamp()


def at(day: int, hour: int, minute: int = 0) -> float:
    """A time in November 2026, when New York trades from 14:30 to 21:00."""
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC).timestamp()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "producer" / "feed_gap.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[GapJournal]:
    result = GapJournal(path)
    yield result
    result.shut()


def rows(journal: GapJournal) -> list[tuple[str | None, str, float, float | None]]:
    """All gaps: nothing is told in most tests."""
    return [(gap.symbol, gap.cause, gap.started, gap.ended) for gap in journal.untold()]


def watching(journal: GapJournal, *symbols: str, now: float = T) -> FeedWatch:
    """A watch that is connected."""
    watch = FeedWatch(symbols, journal)
    watch.started(now, None)
    watch.connected(now)
    watch.look(now)
    return watch


def trades(watch: FeedWatch, symbol: str, start: float, every: float = 1.0, count: int = 21) -> float:
    """Trades in an even rhythm; gives the time of the last one."""
    for number in range(count):
        watch.received(symbol, start + number * every)
    return start + (count - 1) * every


# The producer and the connection


def test_the_first_start_is_no_gap(journal: GapJournal):
    watching(journal, BTC)
    assert rows(journal) == []


def test_a_killed_producer_was_down_from_its_last_heartbeat_to_the_next_connection(journal: GapJournal):
    watch = FeedWatch([BTC], journal)
    watch.started(T, T - 30)
    watch.disconnected(T + 1, T + 1, "refused")
    assert rows(journal) == [(None, "producer down", T - 30, None)]
    watch.connected(T + 5)
    assert rows(journal) == [(None, "producer down", T - 30, T + 5)]
    assert watch.opened == 1


def test_a_stopped_producer_is_down_until_the_next_connection_also_without_a_heartbeat(journal: GapJournal):
    watching(journal, BTC).stopped(T + 10)
    watch = FeedWatch([BTC], journal)
    watch.started(T + 60, None)
    watch.connected(T + 61)
    assert rows(journal) == [(None, "producer down", T + 10, T + 61)]


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_an_outage_lasts_on_over_the_end_of_the_producer(journal: GapJournal, end: str):
    watch = watching(journal, BTC)
    watch.disconnected(T + 20, T + 10, "gone")
    if end == "stopped":
        watch.stopped(T + 30)
    watch = FeedWatch([BTC], journal)
    watch.started(T + 50, T + 30)
    watch.connected(T + 51)
    assert rows(journal) == [(None, "disconnected", T + 10, T + 51)]
    watch.disconnected(T + 70, T + 60, "gone")
    assert rows(journal)[1:] == [(None, "disconnected", T + 60, None)]


@pytest.mark.parametrize(("last_alive", "ended"), [(T + 30, T + 30), (None, T + 50)])
def test_what_a_killed_producer_left_open_for_one_symbol_is_closed(
    journal: GapJournal, last_alive: float | None, ended: float
):
    watching(journal, BTC, "AAPL").rejected("Invalid symbol AAPL", T + 5)
    FeedWatch([BTC, "AAPL"], journal).started(T + 50, last_alive)
    assert rows(journal)[0] == ("AAPL", "subscription rejected", T + 5, ended)
    assert rows(journal)[1:] == ([(None, "producer down", T + 30, None)] if last_alive else [])


def test_a_lost_connection_counts_from_its_last_sign_of_life_to_the_next(journal: GapJournal):
    watch = watching(journal, BTC)
    watch.disconnected(T + 40, T + 12, "ping/pong timed out")
    watch.disconnected(T + 41, T + 40, "refused")
    watch.disconnected(T + 43, T + 42, "refused")
    watch.connected(T + 50)
    assert rows(journal) == [(None, "disconnected", T + 12, T + 50)]
    assert journal.untold()[0].detail == "ping/pong timed out"


def test_a_feed_that_is_away_at_the_first_start_is_disconnected(journal: GapJournal):
    watch = FeedWatch([BTC], journal)
    watch.started(T, None)
    watch.disconnected(T + 2, T + 1, "HTTP 401")
    assert rows(journal) == [(None, "disconnected", T + 1, None)]


def test_a_lost_connection_ends_silences_and_leaves_rejections(journal: GapJournal):
    watch = watching(journal, BTC, "AAPL")
    last = trades(watch, BTC, T)
    watch.look(last + 61)
    watch.rejected("AAPL: no access", last + 62)
    watch.disconnected(last + 90, last + 70, "gone")
    assert rows(journal) == [
        (BTC, "silent", last, last + 70),
        ("AAPL", "subscription rejected", last + 62, None),
        (None, "disconnected", last + 70, None),
    ]


def test_a_stop_ends_what_is_open_for_one_symbol(journal: GapJournal):
    watch = watching(journal, BTC, "AAPL")
    last = trades(watch, BTC, T)
    watch.look(last + 61)
    watch.rejected("AAPL: no access", last + 62)
    watch.stopped(last + 80)
    assert [row[3] for row in rows(journal)] == [last + 80, last + 80, None]


# Rejected subscriptions


@pytest.mark.parametrize(
    ("message", "symbols"),
    [
        ("You don't have access to AAPL.", {"AAPL"}),
        ("Invalid symbol:AAPL", {"AAPL"}),
        ("A is refused, AAPL too", {"A", "AAPL"}),
        ("AAPLX is unknown", set()),
        ("XAAPL is unknown", set()),
        ("no BRK.A", {"BRK.A"}),
        ("IC MARKETS:1 is refused", {"IC MARKETS:1"}),
        ("IC MARKETS:12 is refused", set()),
        ("Subscribing to too many symbols, AAPL is refused", {"AAPL"}),
        ("Invalid message type", set()),
        ("Too many symbols", set()),
        ("", set()),
    ],
)
def test_a_rejection_concerns_the_symbols_that_it_names(journal: GapJournal, message: str, symbols: set[str]):
    watch = watching(journal, "A", "AAPL", "BRK", "BRK.A", "IC MARKETS:1")
    watch.rejected(message, T + 1)
    watch.rejected(message, T + 2)
    assert {row[0] for row in rows(journal)} == symbols
    assert all(row[1:] == ("subscription rejected", T + 1, None) for row in rows(journal))
    assert len(rows(journal)) == len(symbols)


def test_too_many_symbols_without_a_name_concern_those_after_the_fiftieth(journal: GapJournal):
    watch = watching(journal, *(f"BINANCE:{number}USDT" for number in range(53)))
    watch.rejected("Subscribing to too many symbols", T)
    assert sorted(str(row[0]) for row in rows(journal)) == [f"BINANCE:{number}USDT" for number in (50, 51, 52)]


def test_a_trade_ends_a_rejection(journal: GapJournal):
    watch = watching(journal, BTC, "AAPL")
    watch.rejected("AAPL is refused", T)
    watch.received(BTC, T + 5)
    assert rows(journal)[0][3] is None
    watch.received("AAPL", T + 6)
    assert rows(journal) == [("AAPL", "subscription rejected", T, T + 6)]


def test_a_text_that_no_database_takes_is_kept_readable(journal: GapJournal):
    watching(journal, "AAPL").rejected("AAPL\x00\ud800 is refused" + "!" * 10_000, T)
    detail = journal.untold()[0].detail
    assert detail is not None
    assert detail.startswith("AAPL   is refused!")
    assert len(detail) == 500


# Silences


def test_a_silence_longer_than_a_minute_is_a_gap_until_the_next_trade(journal: GapJournal):
    watch = watching(journal, BTC)
    last = trades(watch, BTC, T)
    watch.look(last + 60)
    assert rows(journal) == []
    watch.look(last + 61)
    watch.look(last + 62)
    assert rows(journal) == [(BTC, "silent", last, None)]
    watch.received(BTC, last + 75)
    assert rows(journal) == [(BTC, "silent", last, last + 75)]


def test_a_rhythm_is_known_after_twenty_intervals(journal: GapJournal):
    watch = watching(journal, BTC)
    last = trades(watch, BTC, T, count=20)
    watch.look(last + 1000)
    assert rows(journal) == []
    watch.received(BTC, last + 1)
    watch.look(last + 1000)
    assert rows(journal) == [(BTC, "silent", last + 1, None)]


def test_three_times_the_longest_interval_is_allowed(journal: GapJournal):
    watch = watching(journal, BTC)
    last = trades(watch, BTC, T, every=40)
    watch.look(last + 115)
    assert rows(journal) == []
    watch.look(last + 121)
    assert rows(journal) == [(BTC, "silent", last, None)]


@pytest.mark.parametrize(("hours", "allowed"), [(0, 300), (1, 150), (2, 75), (3, 60)])
def test_the_longest_interval_fades_by_half_in_an_hour(journal: GapJournal, hours: int, allowed: float):
    watch = watching(journal, BTC)
    longest_at = trades(watch, BTC, T, count=21) + 100
    watch.received(BTC, longest_at)
    last = trades(watch, BTC, longest_at + 1, every=10, count=360 * hours + 1)
    # A little less, since it fades during the silence, too.
    watch.look(last + allowed * 0.93)
    assert rows(journal) == []
    watch.look(last + allowed * 1.03)
    assert len(rows(journal)) == 1


def test_a_silence_is_learned_as_at_most_twice_what_was_allowed(journal: GapJournal):
    watch = watching(journal, BTC)
    last = trades(watch, BTC, T)
    watch.look(last + 61)
    watch.received(BTC, last + 5000)
    # 120 s are learned, so that 360 s are allowed.
    watch.look(last + 5000 + 320)
    assert len(rows(journal)) == 1
    watch.look(last + 5000 + 365)
    assert rows(journal)[1:] == [(BTC, "silent", last + 5000, None)]


def test_a_silence_shorter_than_that_is_learned_whole(journal: GapJournal):
    watch = watching(journal, BTC)
    last = trades(watch, BTC, T)
    watch.received(BTC, last + 80)
    watch.look(last + 80 + 225)
    assert rows(journal) == []
    watch.look(last + 80 + 241)
    assert len(rows(journal)) == 1


def test_without_a_connection_nothing_is_silent_and_nothing_is_learned(journal: GapJournal):
    watch = watching(journal, BTC)
    last = trades(watch, BTC, T)
    watch.disconnected(last + 20, last + 10, "gone")
    watch.look(last + 500)
    assert len(rows(journal)) == 1
    watch.connected(last + 1000)
    watch.look(last + 1059)
    assert len(rows(journal)) == 1
    watch.received(BTC, last + 1060)
    watch.look(last + 1122)
    assert rows(journal)[1:] == [(BTC, "silent", last + 1060, None)]


def test_a_symbol_that_does_not_come_back_with_the_connection_is_silent_from_there(journal: GapJournal):
    watch = watching(journal, BTC)
    last = trades(watch, BTC, T)
    watch.disconnected(last + 20, last + 10, "gone")
    watch.connected(last + 100)
    watch.look(last + 161)
    assert rows(journal)[1:] == [(BTC, "silent", last + 100, None)]


def test_a_feed_that_waits_for_kafka_is_not_silent(journal: GapJournal):
    watch = watching(journal, BTC)
    last = trades(watch, BTC, T)
    watch.held_back(last + 500)
    watch.look(last + 501)
    watch.received(BTC, last + 502)
    watch.look(last + 502 + 59)
    assert rows(journal) == []
    watch.look(last + 502 + 61)
    assert rows(journal) == [(BTC, "silent", last + 502, None)]


def test_each_symbol_has_its_own_rhythm_and_others_do_not_matter(journal: GapJournal):
    watch = watching(journal, BTC, "BINANCE:ETHUSDT")
    last = trades(watch, BTC, T)
    trades(watch, "BINANCE:ETHUSDT", T, every=3, count=30)
    trades(watch, "KRAKEN:UNASKED", T)
    watch.look(last + 61)
    assert [row[0] for row in rows(journal)] == [BTC]


def test_a_clock_that_steps_back_does_no_harm(journal: GapJournal):
    watch = watching(journal, BTC)
    last = trades(watch, BTC, T)
    watch.look(last + 61)
    watch.received(BTC, last - 1e8)
    watch.received(BTC, last - 1e8 + 1)
    assert rows(journal) == [(BTC, "silent", last, last)]
    watch.look(last - 1e8 + 2)


# Market hours


def test_a_stock_that_is_silent_in_the_session_is_a_gap(journal: GapJournal):
    watch = watching(journal, "AAPL", now=at(20, 14, 50))
    last = trades(watch, "AAPL", at(20, 15))
    watch.look(last + 61)
    assert rows(journal) == [("AAPL", "silent", last, None)]


@pytest.mark.parametrize(
    ("last_day", "silent_until"),
    [(20, at(23, 14, 30)), (25, at(27, 14, 30))],
    ids=["weekend", "Thanksgiving"],
)
def test_a_stock_may_be_silent_while_its_market_is_closed(journal: GapJournal, last_day: int, silent_until: float):
    watch = watching(journal, "AAPL", now=at(last_day, 20, 50))
    last = trades(watch, "AAPL", at(last_day, 21) - 21)
    assert last < at(last_day, 21)
    now = last
    while now < silent_until + 60:
        watch.look(now)
        now += 600 if now + 600 < silent_until else 1
    assert rows(journal) == []
    watch.look(silent_until + 61)
    assert rows(journal) == [("AAPL", "silent", silent_until, None)]


def test_the_session_that_ends_early_ends_the_watch_early(journal: GapJournal):
    """The Friday after Thanksgiving ends at 18:00 UTC."""
    watch = watching(journal, "AAPL", now=at(27, 17, 30))
    trades(watch, "AAPL", at(27, 18) - 30)
    watch.look(at(27, 18, 10))
    assert rows(journal) == []


def test_a_silence_ends_with_the_session(journal: GapJournal):
    watch = watching(journal, "AAPL", now=at(20, 20, 30))
    last = trades(watch, "AAPL", at(20, 20, 50))
    watch.look(at(20, 20, 55))
    watch.look(at(20, 21))
    assert rows(journal) == [("AAPL", "silent", last, at(20, 21))]
    watch.received("AAPL", at(20, 21, 30))
    watch.look(at(20, 23))
    assert len(rows(journal)) == 1


def test_intervals_outside_the_session_and_over_its_start_are_not_learned(journal: GapJournal):
    watch = watching(journal, "AAPL", now=at(19, 20))
    trades(watch, "AAPL", at(19, 20, 1))
    watch.look(at(20, 12))
    trades(watch, "AAPL", at(20, 12), every=200)
    watch.look(at(20, 14, 30))
    watch.received("AAPL", at(20, 14, 31))
    watch.look(at(20, 14, 32))
    assert rows(journal) == []
    watch.look(at(20, 14, 32) + 1)
    assert rows(journal) == [("AAPL", "silent", at(20, 14, 31), None)]


def test_an_interval_over_the_end_of_the_session_is_not_learned_before_the_next_look(journal: GapJournal):
    watch = watching(journal, "AAPL", now=at(19, 20))
    last = trades(watch, "AAPL", at(19, 20, 59))
    watch.received("AAPL", last + 59)
    watch.look(at(19, 21, 30))
    watch.look(at(20, 14, 30))
    watch.look(at(20, 14, 31) + 1)
    assert rows(journal) == [("AAPL", "silent", at(20, 14, 30), None)]


def test_a_slow_stock_keeps_its_rhythm_over_the_night(journal: GapJournal):
    watch = watching(journal, "SLOW", now=at(18, 18))
    trades(watch, "SLOW", at(18, 18), every=100)
    watch.look(at(19, 3))
    watch.look(at(19, 14, 34))
    assert rows(journal) == []
    watch.look(at(19, 14, 36))
    assert rows(journal) == [("SLOW", "silent", at(19, 14, 30), None)]


def test_forex_rests_at_the_weekend_and_not_at_midnight(journal: GapJournal):
    watch = watching(journal, EURO, now=at(19, 23, 50))
    last = trades(watch, EURO, at(19, 23, 59))
    watch.look(at(20, 0))
    watch.look(last + 61)
    assert rows(journal) == [(EURO, "silent", last, None)]
    trades(watch, EURO, at(20, 23, 59))
    watch.look(at(22, 12))
    watch.look(at(23, 0) + 60)
    assert len(rows(journal)) == 1
    assert period_at("24/5", at(20, 12)).begins == at(16, 0)


def test_crypto_never_rests(journal: GapJournal):
    watch = watching(journal, BTC, now=at(21, 12))
    last = trades(watch, BTC, at(21, 12))
    watch.look(last + 61)
    assert rows(journal) == [(BTC, "silent", last, None)]


def test_the_calendar_is_asked_when_a_period_ends_and_never_by_a_trade(
    journal: GapJournal, monkeypatch: pytest.MonkeyPatch
):
    asked: list[float] = []
    monkeypatch.setattr(module, "period_at", lambda name, now: asked.append(now) or period_at(name, now))
    watch = watching(journal, "AAPL", "MSFT", BTC, now=at(20, 20))
    for second in range(3600):
        watch.received("AAPL", at(20, 20) + second)
        watch.received(BTC, at(20, 20) + second)
        watch.look(at(20, 20) + second)
    assert asked == [at(20, 20)]
    watch.received("AAPL", at(20, 21))
    watch.look(at(20, 21))
    watch.look(at(21, 21))
    assert asked == [at(20, 20), at(20, 21)]


# The journal


def test_a_gap_has_its_values_and_is_told_once_for_each_change(journal: GapJournal):
    key = journal.open("AAPL", T, "silent", "60 s are usual")
    (gap,) = journal.untold()
    assert gap == Gap(key, "AAPL", T, None, "silent", "60 s are usual", gap.revision)
    assert journal.open_gaps() == [gap]
    journal.close(key, T + 5)
    journal.told(key, gap.revision)
    (changed,) = journal.untold()
    assert changed.ended == T + 5
    journal.told(key, changed.revision)
    assert journal.untold() == journal.open_gaps() == []
    journal.close(key, T + 9)
    assert journal.untold() == []


def test_a_gap_does_not_end_before_it_starts(journal: GapJournal):
    journal.close(journal.open(None, T, "disconnected", None), T - 5)
    assert rows(journal) == [(None, "disconnected", T, T)]


def test_two_threads_open_and_close_at_once(journal: GapJournal):
    def work(symbol: str) -> None:
        for number in range(50):
            key = journal.open(symbol, T + number, "silent", None)
            for gap in journal.untold():
                journal.told(gap.id, gap.revision)
            journal.close(key, T + number + 0.5)

    threads = [threading.Thread(target=work, args=[symbol]) for symbol in ("AAPL", "MSFT")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.open_gaps() == []
    with sqlite3.connect(journal._file.execute("PRAGMA database_list").fetchone()[2]) as file:
        found = file.execute("SELECT symbol, started, ended FROM gap").fetchall()
    assert sorted(found) == sorted(
        (symbol, T + number, T + number + 0.5) for symbol in ("AAPL", "MSFT") for number in range(50)
    )


def test_a_journal_that_nobody_closed_is_there_again(path: Path):
    abandoned = GapJournal(path)
    key = abandoned.open(None, T, "disconnected", "gone")
    again = GapJournal(path)
    assert [gap.id for gap in again.open_gaps()] == [key]
    again.close(key, T + 1)
    assert abandoned.open_gaps() == []
    again.shut()
    abandoned.shut()


def test_a_journal_survives_the_death_of_its_process(path: Path):
    code = """
import os, signal, sys
from pathlib import Path
from stock_pipeline.ingest.gaps import GapJournal
journal = GapJournal(Path(sys.argv[1]))
for number in range(100):
    journal.open("AAPL", number, "silent", None)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=os.environ, timeout=60)
    assert done.returncode == -signal.SIGKILL
    journal = GapJournal(path)
    assert len(journal.open_gaps()) == 100
    journal.shut()


def test_what_cannot_be_written_waits_and_keeps_its_order(journal: GapJournal, path: Path):
    watch = watching(journal, BTC)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    watch.disconnected(T + 2, T + 1, "gone")
    watch.connected(T + 3)
    other.execute("ROLLBACK")
    other.close()
    assert rows(journal) == [(None, "disconnected", T + 1, T + 3)]


# Telling PostgreSQL


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(stock_pipeline_home=tmp_path, db_url=f"postgresql://127.0.0.1:{free_port()}/stocks")


def test_a_database_that_is_away_is_told_later(
    settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    journal = GapJournal(journal_path(settings))
    key = journal.open(None, T, "disconnected", "gone")
    tell_gaps(settings, journal)
    tell_gaps(settings, journal)
    assert len(journal.untold()) == 1
    assert caplog.text.count("are told later") == 1

    class Database:
        told: list[tuple[str, float | None]] = []

        def execute(self, _statement: object, values: dict) -> None:
            self.told.append((values["id"], values["ended"]))
            if values["ended"] is None:
                # The feed comes back while PostgreSQL is being told.
                journal.close(key, T + 5)

    monkeypatch.setattr(psycopg, "connect", lambda _: nullcontext(Database()))
    tell_gaps(settings, journal)
    tell_gaps(settings, journal)
    tell_gaps(settings, journal)
    assert Database.told == [(key, None), (key, T + 5)]
    monkeypatch.undo()
    journal.open(None, T + 10, "disconnected", "gone")
    tell_gaps(settings, journal)
    assert caplog.text.count("are told later") == 2
    journal.shut()


# The client


def start_client(
    feed: Feed, journal: GapJournal, on_frame: Callable[[bytes, int], int | None]
) -> tuple[FeedWatch, threading.Event]:
    """A client of the feed in a thread of its own; its watch, and what ends it."""
    watch, stop = FeedWatch(["FEED:A"], journal), threading.Event()
    watch.started(T, None)
    arguments = (f"ws://127.0.0.1:{feed.port}", "sesame", ["FEED:A"], stop, on_frame, lambda _: None, watch)
    threading.Thread(target=FinnhubClient(*arguments).run, daemon=True).start()
    return watch, stop


def test_the_client_tells_the_watch_of_its_connections(journal: GapJournal, feed: Feed):
    feed.refuse = HTTPStatus.UNAUTHORIZED
    _, stop = start_client(feed, journal, lambda *_: None)
    eventually(journal.open_gaps, 20)
    feed.refuse = None
    eventually(lambda: len(feed.received) == 1, 20)
    eventually(lambda: not journal.open_gaps(), 20)
    feed.connections[-1].close()
    eventually(lambda: len(feed.received) == 2, 20)
    eventually(lambda: not journal.open_gaps(), 20)
    stop.set()
    refused, lost = journal.untold()
    assert refused.cause == lost.cause == "disconnected"
    assert "HTTP 401" in str(refused.detail)
    assert refused.started < refused.ended <= lost.started < lost.ended


def test_a_gap_begins_with_the_newest_trade_that_came_or_the_ping_that_was_answered(
    journal: GapJournal, feed: Feed, monkeypatch: pytest.MonkeyPatch
):
    """A line may be slow: what is on it when it breaks was sent before the newest frame came."""
    newest: list[int] = []

    def took(_raw: bytes, received_ms: int) -> int:
        newest.append(received_ms - 300)
        return newest[-1]

    monkeypatch.setattr("stock_pipeline.ingest.finnhub.PING_INTERVAL", 2.0)
    monkeypatch.setattr("stock_pipeline.ingest.finnhub.PING_PATIENCE", 1.0)
    watch, stop = start_client(feed, journal, took)
    eventually(lambda: feed.received, 20)
    time.sleep(1)
    feed.send("{}")
    eventually(lambda: newest)
    feed.connections[-1].close()
    eventually(lambda: len(feed.received) == 2, 20)
    [gap] = journal.untold()
    assert gap.started == newest[0] / 1000

    eventually(lambda: len(feed.received) == 2 and not journal.open_gaps(), 20)
    connected = watch.complete_until
    eventually(lambda: watch.complete_until > connected, 10, pause=0.01)
    assert 1.9 < watch.complete_until - connected < 3
    stop.set()


def test_a_clock_that_was_set_back_does_not_leave_the_feed_complete_until_later(journal: GapJournal):
    watch = watching(journal, BTC)
    watch.took_in_until(T + 3600, T + 3601)
    watch.took_in_until(T + 2, T + 3)
    assert watch.complete_until == T + 3
    watch.took_in_until(T + 4, T + 5)
    assert watch.complete_until == T + 4


def test_answers_to_pings_behind_a_queue_of_frames_are_neither_late_nor_newer_than_the_frames(
    journal: GapJournal, feed: Feed, monkeypatch: pytest.MonkeyPatch
):
    """A producer that is held back, or slower than the feed, finds its pings' answers where the server put them."""
    handled: list[tuple[float, float]] = []

    def take_long(raw: bytes, _received_ms: int) -> None:
        handled.append((watch.complete_until, float(raw)))
        time.sleep(2 if len(handled) == 1 else 0.01)

    monkeypatch.setattr("stock_pipeline.ingest.finnhub.PING_INTERVAL", 0.2)
    monkeypatch.setattr("stock_pipeline.ingest.finnhub.PING_PATIENCE", 0.1)
    watch, stop = start_client(feed, journal, take_long)
    eventually(lambda: feed.received, 20)
    feed.connections[-1].pong(b"not asked for")
    for _ in range(50):
        feed.send(str(time.time()))
        time.sleep(0.05)
    eventually(lambda: len(handled) == 50, 20)
    stop.set()
    assert len(feed.connections) == 1
    assert all(complete_until <= sent for complete_until, sent in handled)
    assert handled[0][0] < handled[-1][0]
