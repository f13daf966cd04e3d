"""Frames of Finnhub become messages; whatever is no trade keeps its raw bytes and gets a reason."""

import json

import pytest

from stock_pipeline.errors import NotATrade
from stock_pipeline.ingest.trade import check_trade, read_frame
from stock_pipeline_tests.messages import decode

NOW = 1_700_000_000_000
GOOD = {"s": "AAPL", "p": 190.5, "t": NOW, "v": 100, "c": ["1", "12"]}


def test_a_frame_is_split_by_symbol_and_keeps_its_order():
    data = [GOOD, GOOD | {"s": "MSFT", "c": None}, GOOD | {"p": 191}]
    frame = read_frame(json.dumps({"type": "trade", "data": data}).encode(), NOW)
    assert [(m.symbol, m.trades) for m in frame.messages] == [("AAPL", 2), ("MSFT", 1)]
    first = decode(frame.messages[0].value)
    assert first["type"] == "trade"
    assert [trade["p"] for trade in first["data"]] == [190.5, 191.0]
    assert first["data"][0]["c"] == ["1", "12"]
    assert decode(frame.messages[1].value)["data"][0]["c"] is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"p": None}, "field missing: p"),
        ({"p": float("nan")}, "p is not a finite"),
        ({"p": float("inf")}, "p is not a finite"),
        ({"p": 10**400}, "p is not a finite"),
        ({"p": 0}, "p is not a finite"),
        ({"p": -1}, "p is not a finite"),
        ({"p": 1.1e100}, "p is not a finite"),
        ({"p": 0.9e-100}, "p is not a finite"),
        ({"p": True}, "p is no number"),
        ({"v": -0.5}, "v is not a finite"),
        ({"v": 5e-324}, "v is not a finite"),
        ({"v": 1e300}, "v is not a finite"),
        ({"t": 0}, "before 1990"),
        ({"t": NOW + 120_000}, "60 s after receipt"),
        ({"t": "1700000000000"}, "t is no whole number"),
        ({"s": ""}, "printable"),
        ({"s": "A" * 10_000}, "printable"),
        ({"s": "A\x00"}, "printable"),
        ({"c": [1]}, "list of at most 100 printable strings"),
        ({"c": ["\x00"]}, "list of at most 100 printable strings"),
        ({"c": ["1"] * 101}, "list of at most 100 printable strings"),
    ],
)
def test_what_is_no_trade_is_rejected_with_its_reason(change, reason):
    with pytest.raises(NotATrade, match=reason):
        check_trade(GOOD | change, NOW)


@pytest.mark.parametrize("symbol", ["BINANCE:BTCUSDT", "IC MARKETS:1", "'; DROP TABLE tick_data; --", '"'])
def test_a_symbol_may_be_any_printable_text(symbol):
    assert check_trade(GOOD | {"s": symbol}, NOW)["s"] == symbol


def test_a_price_update_and_the_latest_time_allowed_are_trades():
    assert check_trade(GOOD | {"v": 0, "t": NOW + 60_000}, NOW)["v"] == 0


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b"null", b'{"type":"news"}', b'{"type":"trade"}', b"\xff", b"[" * 100_000]
)
def test_a_frame_that_cannot_be_read_is_rejected_whole(raw):
    frame = read_frame(raw, NOW)
    assert [rejected.raw for rejected in frame.rejected] == [raw]
    assert not frame.messages


def test_one_bad_trade_does_not_cost_its_neighbours():
    raw = json.dumps({"type": "trade", "data": [GOOD, {"s": "AAPL"}, GOOD]}).encode()
    frame = read_frame(raw, NOW)
    assert sum(message.trades for message in frame.messages) == 2
    assert len(frame.rejected) == 1


def test_more_trades_than_a_seq_can_number_become_several_messages():
    frame = read_frame(json.dumps({"type": "trade", "data": [GOOD] * 5000}).encode(), NOW)
    assert [message.trades for message in frame.messages] == [4095, 905]


def test_messages_are_no_longer_than_kafka_takes():
    longest = GOOD | {"s": "\U00010400" * 64, "c": ["\U00010400" * 64] * 100}
    frame = read_frame(
        json.dumps({"type": "trade", "data": [longest | {"v": n + 1} for n in range(200)]}).encode(), NOW
    )
    assert max(len(message.value) for message in frame.messages) < 1_000_000
    kept = [trade for message in frame.messages for trade in decode(message.value)["data"]]
    assert [trade["v"] for trade in kept] == [n + 1.0 for n in range(200)]
    assert len(frame.messages) < 10


def test_control_frames_are_handed_on():
    assert read_frame(b'{"type":"ping"}', NOW).control == {"type": "ping"}
    assert read_frame(b'{"type":"error","msg":"no"}', NOW).control["msg"] == "no"
