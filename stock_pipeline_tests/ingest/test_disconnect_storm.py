"""A day like those that Finnhub's users reported, a hundred times as fast: 150 disconnects, one of them of 579 s."""

import random
import threading
import time
from http import HTTPStatus
from pathlib import Path

import pytest

from stock_pipeline.ingest import finnhub
from stock_pipeline.ingest.finnhub import FinnhubClient
from stock_pipeline.ingest.gaps import FeedWatch, GapJournal
from stock_pipeline_tests.conftest import eventually
from stock_pipeline_tests.feed import Feed, frame
from stock_pipeline_tests.messages import trade

FASTER = 100
DISCONNECTS = 150
LONGEST = 579 / FASTER
SYMBOLS = ["BINANCE:A", "BINANCE:B"]


def test_every_outage_becomes_a_gap_and_no_second_connection_is_ever_tried(
    feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("FIRST_PAUSE", "MAX_PAUSE", "HEALTHY_AFTER"):
        monkeypatch.setattr(finnhub, name, getattr(finnhub, name) / FASTER)
    chance, stop = random.Random(3), threading.Event()
    journal = GapJournal(tmp_path / "feed_gap.sqlite")
    watch = FeedWatch(SYMBOLS, journal)
    watch.started(time.time(), None)
    newest = time.time()

    def took(_raw: bytes, _received_ms: int) -> int:
        return int(newest * 1000)

    arguments = (f"ws://127.0.0.1:{feed.port}", "sesame", SYMBOLS, stop, took, lambda _: None, watch)
    client = threading.Thread(target=FinnhubClient(*arguments).run, daemon=True)
    client.start()
    # Only then does the client know, too, that it has subscribed.
    eventually(lambda: watch.complete_until > newest, 20)

    outages, attempts_in_longest = [], 0
    for number in range(DISCONNECTS):
        # Some every few seconds, some after minutes.
        time.sleep(chance.choice((0.0, 0.02, 0.05, 0.2)))
        newest = time.time()
        feed.send(frame(trade(SYMBOLS[0])))
        eventually(lambda newest=newest: watch.complete_until == pytest.approx(newest, abs=0.002), 10, pause=0.001)
        refused, subscribed = feed.refused, len(feed.received)
        lasts = LONGEST if number == 70 else chance.choice((0.0, 0.0, 0.05, 0.2))
        feed.refuse = HTTPStatus.SERVICE_UNAVAILABLE if lasts else None
        feed.connections[-1].close()
        time.sleep(lasts)
        feed.refuse = None
        over = time.time()
        wanted = subscribed + len(SYMBOLS)
        eventually(lambda wanted=wanted: len(feed.received) == wanted, 10, pause=0.001)
        eventually(lambda newest=newest: watch.complete_until > newest, 10, pause=0.001)
        outages.append((newest, over, time.time()))
        if lasts == LONGEST:
            attempts_in_longest = feed.refused - refused
    stop.set()
    client.join(timeout=10)

    gaps = journal.untold()
    assert [gap.cause for gap in gaps] == ["disconnected"] * DISCONNECTS
    for gap, (newest_trade, over, subscribed) in zip(gaps, outages, strict=True):
        assert gap.started == pytest.approx(newest_trade, abs=0.002)
        assert over - 0.002 <= gap.ended <= subscribed + 0.05
    assert feed.most_open == 1
    assert [wish["symbol"] for wish in feed.received] == SYMBOLS * (DISCONNECTS + 1)
    # Pauses of up to 0.6 s, on average half as long.
    assert 8 < attempts_in_longest < 60
