"""The recorded trades through simulator, producer, Kafka and both streams, against figures from pandas."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psycopg
import pytest

import stock_pipeline.ingest
from stock_pipeline_tests.conftest import Stack, eventually, on_free_ports
from stock_pipeline_tests.messages import encode, trade

pytestmark = pytest.mark.stack

INGEST = Path(stock_pipeline.ingest.__file__).parent
RECORDED = 9_999


def recorded() -> pd.DataFrame:
    trades = pd.read_csv(INGEST / "btcusdt_trades.csv.gz")
    trades["minute"] = pd.to_datetime(trades["t"] // 60_000 * 60_000, unit="ms", utc=True)
    return trades


def expected_bars() -> pd.DataFrame:
    # The feed keeps the file's order and the times in it never fall, so that first and last are open and close.
    trades = recorded()
    assert trades["t"].is_monotonic_increasing
    trades["notional"] = trades["p"] * trades["v"]
    by_minute = trades.groupby("minute")
    bars = by_minute["p"].agg(["first", "max", "min", "last", "count"])
    bars["volume"] = by_minute["v"].sum()
    bars["trades"] = by_minute["v"].agg(lambda volumes: (volumes > 0).sum())
    bars["vwap"] = by_minute["notional"].sum() / bars["volume"]
    return bars


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of its own after the whole recording, at its original times, went through it once."""
    stack = on_free_ports(tmp_path_factory.mktemp("replayed") / "home")
    assert stack.command("up").returncode == 0
    simulator = stack.start(
        "simulate", "--once", "--original-times", "--speed", "2000", "--trades", str(INGEST / "btcusdt_trades.csv.gz")
    )
    producer = stack.start("produce", SYMBOLS="BINANCE:BTCUSDT")
    assert simulator.wait(timeout=120) == 0
    producer.terminate()
    assert producer.wait(timeout=60) == 0
    stack.catch_up()
    yield stack
    assert stack.command("down", "--wipe").returncode == 0


def bars_of(stack: Stack) -> pd.DataFrame:
    rows = stack.query(
        "SELECT timestamp, open, high, low, close, ticks, volume, trades, vwap FROM ohlcv_data "
        "WHERE symbol = 'BINANCE:BTCUSDT' ORDER BY timestamp"
    )
    columns = ["minute", "first", "max", "min", "last", "count", "volume", "trades", "vwap"]
    found = pd.DataFrame(rows, columns=columns)
    found["minute"] = pd.to_datetime(found["minute"], utc=True)
    return found.set_index("minute")


def assert_bars_are_right(stack: Stack) -> None:
    expected, found = expected_bars(), bars_of(stack)
    assert list(found.index) == list(expected.index)
    for column in ("first", "max", "min", "last", "count", "trades"):
        assert list(found[column]) == list(expected[column]), column
    for column in ("volume", "vwap"):
        pd.testing.assert_series_equal(
            found[column], expected[column], rtol=1e-9, check_index_type=False, check_freq=False, check_index=False
        )


def test_every_recorded_trade_is_there_once(replayed: Stack):
    trades = recorded()
    rows = replayed.query(
        "SELECT price, extract(epoch FROM event_time) * 1000, volume FROM tick_data "
        "WHERE symbol = 'BINANCE:BTCUSDT' ORDER BY event_time, seq"
    )
    assert len(rows) == RECORDED
    assert [row[0] for row in rows] == list(trades["p"])
    assert [int(row[1]) for row in rows] == list(trades["t"])
    assert [row[2] for row in rows] == list(trades["v"])


def test_every_bar_equals_pandas(replayed: Stack):
    assert_bars_are_right(replayed)


def test_the_offsets_of_both_streams_are_the_ends_of_the_topic(replayed: Stack):
    sums = replayed.query("SELECT stream, sum(next_offset), count(DISTINCT topic_id) FROM stream_offset GROUP BY 1")
    ends = {stream: int(total) for stream, total, _ in sums}
    assert set(ends) == {"tick-stream", "ohlcv-stream"}
    assert len(set(ends.values())) == 1
    assert {topics for *_, topics in sums} == {1}


def test_a_topic_read_again_from_its_beginning_changes_nothing(replayed: Stack):
    before = replayed.query("SELECT symbol, event_time, seq, price FROM tick_data ORDER BY 1, 2, 3")
    shutil.rmtree(replayed.home / "checkpoints")
    with replayed.connect() as connection:
        connection.execute("TRUNCATE stream_offset")
    replayed.catch_up()
    assert replayed.query("SELECT symbol, event_time, seq, price FROM tick_data ORDER BY 1, 2, 3") == before
    assert_bars_are_right(replayed)


def test_a_lost_checkpoint_goes_on_from_the_committed_offsets(replayed: Stack):
    shutil.rmtree(replayed.home / "checkpoints")
    before = replayed.query("SELECT count(*) FROM tick_data")
    done = replayed.command("stream", "tick", "--available-now")
    assert done.returncode == 0
    assert "no checkpoint, going on from" in done.stderr
    assert replayed.query("SELECT count(*) FROM tick_data") == before
    replayed.catch_up("ohlcv")
    assert_bars_are_right(replayed)


def test_consume_prints_decoded_messages(replayed: Stack):
    [(held,)] = replayed.query("SELECT sum(next_offset)::int FROM stream_offset WHERE stream = 'tick-stream'")
    done = replayed.command("consume", "--from-beginning", "--limit", str(held))
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(messages) == held
    prices = [trade["p"] for message in messages if message["key"] == "BINANCE:BTCUSDT" for trade in message["data"]]
    assert prices == list(recorded()["p"])

    unreadable = replayed.send(b"not Avro", partition=3)
    done = replayed.command("consume", "--from-beginning", "--limit", str(held + 1))
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert [message["offset"] for message in messages if "error" in message] == unreadable


BAD_TRADES = {
    "p is not a finite": [{"p": float("nan")}, {"p": float("inf")}, {"p": 0.0}, {"p": -3.0}, {"p": 1e101}],
    "v is not a finite": [{"v": float("nan")}, {"v": -1.0}, {"v": 1e-101}],
    "t is before 1990": [{"t": 0}, {"t": -(2**63)}],
    "t is more than 60 s": [{"t": int(time.time() * 1000) + 86_400_000}, {"t": 2**63 - 1}],
    "s is not 1 to 64": [{"s": ""}, {"s": "A" * 65}, {"s": "A\x00"}, {"s": "A\n"}],
    "c is no list": [{"c": ["\x00"]}],
}


def test_foreign_messages_are_taken_in_and_bad_ones_are_dead_lettered(replayed: Stack):
    odd = "'; DROP TABLE tick_data; --"
    good = encode(trade("FOREIGN:A", c=["1", "12"]), trade("FOREIGN:B", v=0.0), trade("FOREIGN:A", p=11.0), trade(odd))
    rejected = [change for changes in BAD_TRADES.values() for change in changes]
    mixed = encode(trade("FOREIGN:C"), *(trade("FOREIGN:C", **change) for change in rejected))
    crowd = encode(*[trade("FOREIGN:D")] * 4096)
    news = encode(kind="news")
    # A count of 2^40 elements, for which a naive reader would reserve memory.
    bomb = b"\x0atrade" + bytes([0x80, 0x80, 0x80, 0x80, 0x80, 0x40])
    damaged = [b"not Avro", b"", b"\x00", b"\xff" * 40, bomb, b'{"type":"trade"}']
    offsets = replayed.send(good, mixed, crowd, news, None, *damaged, partition=2)
    replayed.send(b"no trade beside it in the batch", partition=1)
    replayed.catch_up()

    rows = replayed.query(
        "SELECT symbol, price, volume, conditions, seq FROM tick_data WHERE symbol LIKE 'FOREIGN%%' OR symbol = %s "
        "ORDER BY seq",
        odd,
    )
    base = offsets[0] * 2**22 + 2 * 2**12
    assert rows[:4] == [
        ("FOREIGN:A", 10.0, 1.0, ["1", "12"], base),
        ("FOREIGN:B", 10.0, 0.0, None, base + 1),
        ("FOREIGN:A", 11.0, 1.0, None, base + 2),
        (odd, 10.0, 1.0, None, base + 3),
    ]
    assert [row[0] for row in rows[4:]] == ["FOREIGN:C"]
    bars = replayed.query("SELECT ticks, trades, volume, vwap FROM ohlcv_data WHERE symbol = 'FOREIGN:B'")
    assert bars == [(1, 0, 0.0, None)]

    every = replayed.records("stock-ticks-dead-letter")
    assert [value for value, headers in every if headers["partition"] == "1"] == [b"no trade beside it in the batch"]
    letters = [(value, headers) for value, headers in every if headers["partition"] == "2"]
    reasons = [headers["reason"] for _, headers in letters]
    for beginning, changes in BAD_TRADES.items():
        assert sum(reason.startswith(beginning) for reason in reasons) == len(changes), beginning
    whole = {int(headers["offset"]): value for value, headers in letters if "index" not in headers}
    assert whole == dict(zip(offsets[2:], [crowd, news, b"", *damaged], strict=True))
    assert all(headers["topic"] == "stock-ticks" for _, headers in letters)


def test_of_a_record_as_long_as_kafka_takes_the_dead_letter_holds_the_beginning(replayed: Stack):
    longest = bytes(range(256)) * 3_900
    [offset] = replayed.send(longest, partition=3)
    replayed.catch_up("tick")
    value, headers = replayed.records("stock-ticks-dead-letter")[-1]
    assert (headers["partition"], headers["offset"]) == ("3", str(offset))
    assert headers["truncated_from"] == str(len(longest))
    assert longest.startswith(value) and len(value) == 900_000


def test_the_reader_can_only_read_and_the_writer_cannot_alter(replayed: Stack):
    with replayed.connect("reader") as connection:
        assert connection.execute("SELECT count(*) FROM tick_data").fetchone() != (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM tick_data")
    with replayed.connect("writer") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("ALTER TABLE tick_data ADD COLUMN x INT")


def test_a_batch_that_was_begun_is_done_again_at_once(replayed: Stack):
    """Not by a query that fails and is started again: SPARK-57438."""
    newest = max((replayed.home / "checkpoints" / "tick-stream" / "commits").glob("[0-9]*"), key=lambda p: int(p.name))
    newest.unlink()
    done = replayed.command("stream", "tick", "--available-now")
    assert done.returncode == 0 and "query failed" not in done.stderr, done.stderr
    assert newest.exists()


def test_a_stream_that_is_killed_loses_nothing(replayed: Stack):
    stream = replayed.start("stream", "tick")
    symbol = "FOREIGN:KILLED"
    for number in range(20):
        replayed.send(encode(trade(symbol, v=float(number))), partition=1)
        if number == 10:
            eventually(lambda: replayed.query("SELECT FROM tick_data WHERE symbol = %s", symbol), 90)
            stream.kill()
            stream.wait(timeout=20)
    replayed.catch_up("tick")
    volumes = replayed.query("SELECT volume FROM tick_data WHERE symbol = %s ORDER BY seq", symbol)
    assert [volume for (volume,) in volumes] == [float(number) for number in range(20)]
