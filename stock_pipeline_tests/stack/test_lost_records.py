"""What the topic no longer holds when a stream comes back is recorded as a gap, and the stream goes on."""

import time
from collections.abc import Callable

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from stock_pipeline_tests.conftest import Stack
from stock_pipeline_tests.messages import encode, trade

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


def seconds_ago(seconds: float) -> int:
    return int((time.time() - seconds) * 1000)


def send(stack: Stack, symbol: str, count: int, received: int) -> list[int]:
    values = [encode(trade(symbol, t=received + number)) for number in range(count)]
    return stack.send(*values, times=[received] * count)


def gaps(stack: Stack, cause: str) -> dict[str, tuple[float, float]]:
    found = stack.query(
        "SELECT detail, extract(epoch FROM started)::float, extract(epoch FROM ended)::float "
        "FROM feed_gap WHERE cause = %s",
        cause,
    )
    assert len(found) == len({stream for stream, _, _ in found})
    return {stream: (started, ended) for stream, started, ended in found}


def ticks(stack: Stack, symbol: str) -> tuple[int, int]:
    """How many of its trades the ticks and the bars count."""
    [row] = stack.query(
        "SELECT (SELECT count(*) FROM tick_data WHERE symbol = %s)::int, "
        "(SELECT coalesce(sum(ticks), 0) FROM ohlcv_data WHERE symbol = %s)::int",
        symbol,
        symbol,
    )
    return row


def test_a_stream_goes_on_after_records_expired_and_after_the_topic_was_made_anew(own: Stack):
    assert own.command("up").returncode == 0
    admin = AdminClient({"bootstrap.servers": own.kafka})
    send(own, "LOST:A", 5, seconds_ago(600))
    own.catch_up()
    committed = time.time()
    assert ticks(own, "LOST:A") == (5, 5)

    # Eight more come while the streams are down; five of them expire.
    begin = send(own, "LOST:B", 5, seconds_ago(500))[0]
    kept = seconds_ago(0)
    send(own, "LOST:C", 3, kept)
    delete(lambda: admin.delete_records([TopicPartition("stock-ticks", 0, begin + 5)]))
    own.catch_up()
    assert (ticks(own, "LOST:A"), ticks(own, "LOST:B"), ticks(own, "LOST:C")) == ((5, 5), (0, 0), (3, 3))
    found = gaps(own, "expired in Kafka")
    assert set(found) == {"tick-stream", "ohlcv-stream"}
    for started, ended in found.values():
        assert abs(started - committed) < 60
        assert ended == pytest.approx(kept / 1000)

    # Kafka has lost records that were committed, with its machine: what comes next has their offsets.
    with own.connect() as connection:
        connection.execute("UPDATE stream_offset SET next_offset = next_offset + 100 WHERE partition = 0")
        connection.execute("UPDATE feed_gap SET cause = 'silent'")
    own.catch_up()
    send(own, "LOST:E", 3, seconds_ago(0))
    own.catch_up()
    assert ticks(own, "LOST:E") == (3, 3)
    assert set(gaps(own, "expired in Kafka")) == {"tick-stream", "ohlcv-stream"}

    done = own.command("rebuild", "--from", "2026-01-01", "--to", "2026-01-02")
    assert done.returncode == 1 and "Kafka has lost records" in done.stderr

    # The same, and as many came since.
    with own.connect() as connection:
        connection.execute("UPDATE stream_offset SET updated_at = now() - interval '9 minutes'")
        connection.execute("UPDATE feed_gap SET cause = 'silent'")
        connection.execute("DELETE FROM tick_data WHERE symbol = 'LOST:E'")
    own.catch_up()
    assert ticks(own, "LOST:E") == (3, 3)
    assert set(gaps(own, "expired in Kafka")) == {"tick-stream", "ohlcv-stream"}

    # A topic of the same name that has come further than the streams had in the old one.
    delete(lambda: admin.delete_topics(["stock-ticks"]))
    committed = time.time()
    assert own.command("up").returncode == 0
    send(own, "LOST:D", 40, seconds_ago(0))
    own.catch_up()
    assert ticks(own, "LOST:D") == (40, 40)
    found = gaps(own, "other topic")
    assert set(found) == {"tick-stream", "ohlcv-stream"}
    for started, ended in found.values():
        assert abs(started - committed) < 60
        assert ended >= started
    assert own.command("reconcile").returncode == 0


def delete(request: Callable[[], dict]) -> None:
    for answer in request().values():
        answer.result(timeout=20)
