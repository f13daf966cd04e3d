"""The producer against a feed that misbehaves, and with a broker that is away."""

import json
import os
import signal
import subprocess
import time
from http import HTTPStatus
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from stock_pipeline.defs.ingest.producer import change_symbols
from stock_pipeline.ingest.spool import Spool
from stock_pipeline.local.component import free_port
from stock_pipeline.settings import Settings, load_settings
from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.feed import Feed, frame
from stock_pipeline_tests.messages import trade

pytestmark = pytest.mark.stack


def start_producer(stack: Stack, feed: Feed, **changes: str):
    environment = {"FINNHUB_URL": f"ws://127.0.0.1:{feed.port}", "FINNHUB_TOKEN": "sesame-token", **changes}
    return stack.start("produce", **environment)


def counts(stack: Stack) -> dict[str, int]:
    return json.loads((stack.home / "run" / "producer.json").read_text())["counts"]


def finish(process) -> str:
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    return output


def test_bad_frames_are_dead_lettered_and_good_ones_go_on(stack: Stack, feed: Feed):
    before = len(stack.records("stock-ticks-dead-letter"))
    producer = start_producer(stack, feed, SYMBOLS="FEED:A,FEED:B")
    eventually(lambda: len(feed.received) == 2, 30)
    assert [message["symbol"] for message in feed.received] == ["FEED:A", "FEED:B"]
    huge = trade("A" * 10_000)
    ahead = trade("FEED:A", t=time.time_ns() // 1_000_000 + 120_000)
    bad = ["{", "[]", '{"type":"\\ud800"}', '{"type":"news","data":[]}', frame({"s": "A"}), frame(huge), b"\xff\xfe"]
    bad += [frame(trade("FEED:A", t=0)), frame(ahead), '{"type":"trade","data":[{"p":NaN}]}']
    for text in bad:
        feed.send(text)
        feed.send(frame(trade("FEED:A")))
    feed.send('{"type":"ping"}')
    feed.send('{"type":"error","msg":"Subscribing to too many symbols"}')
    feed.send("x" * 2_000_000)
    feed.send(frame(*[trade("FEED:B")] * 5000))
    feed.send(frame(*[trade("FEED:A", c=["x" * 60] * 100)] * 500))
    eventually(lambda: counts(stack).get("trades") == len(bad) + 5500, 30)
    eventually(lambda: (beat := counts(stack)).get("delivered") == beat["messages"] + beat["dead_letters"], 30)
    output = finish(producer)

    letters = stack.records("stock-ticks-dead-letter")[before:]
    assert len(letters) == len(bad) + 1
    assert all(headers["reason"] and headers["origin"] == "websocket" for _, headers in letters)
    assert letters[0][0] == b"{"
    assert json.loads(letters[5][0]) == huge
    assert letters[6][0] == b"\xff\xfe"
    assert letters[-1][1]["truncated_from"] == "2000000"
    assert "Subscribing to too many symbols" in output
    assert "sesame-token" not in output


def test_a_lost_connection_is_renewed_and_subscribed_again(stack: Stack, feed: Feed):
    producer = start_producer(stack, feed, SYMBOLS="FEED:A")
    eventually(lambda: len(feed.received) == 1, 30)
    feed.connections[-1].close()
    eventually(lambda: len(feed.received) == 2, 30)
    feed.send(frame(trade("FEED:A")))
    eventually(lambda: counts(stack).get("delivered") == 1, 30)
    finish(producer)


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS])
def test_a_refused_handshake_is_explained_and_tried_again(stack: Stack, feed: Feed, status: HTTPStatus):
    feed.refuse = status
    producer = start_producer(stack, feed)
    eventually(lambda: feed.refused >= 2, 40)
    feed.refuse = None
    eventually(lambda: feed.received, 40)
    output = finish(producer)
    assert f"HTTP {status.value}" in output
    assert ("finnhub_token" if status == HTTPStatus.UNAUTHORIZED else "only one is allowed") in output
    assert "sesame-token" not in output


def test_a_second_producer_is_refused(stack: Stack, feed: Feed):
    producer = start_producer(stack, feed)
    eventually(lambda: feed.received, 30)
    second = stack.command("produce", FINNHUB_URL=f"ws://127.0.0.1:{feed.port}")
    assert second.returncode == 1
    assert "producer is running already" in second.stderr
    finish(producer)


def test_symbols_change_on_sighup_without_a_new_connection(stack: Stack, feed: Feed):
    environment = stack.home.parent / ".env"

    def change(symbols: str) -> None:
        environment.write_text(f"SYMBOLS={symbols}")
        producer.send_signal(signal.SIGHUP)

    def wishes() -> list[tuple[str, str]]:
        return [(wish["type"], wish["symbol"]) for wish in feed.received]

    environment.write_text("SYMBOLS=FEED:A,FEED:B")
    producer = start_producer(stack, feed)
    eventually(lambda: len(feed.received) == 2, 30)
    change("FEED:C,FEED:B")
    eventually(lambda: wishes()[2:] == [("unsubscribe", "FEED:A"), ("subscribe", "FEED:C")], 10)
    change("FEED:C," + "x" * 65)
    time.sleep(2)
    change("FEED:B,FEED:C,FEED:D")
    eventually(lambda: wishes()[4:] == [("subscribe", "FEED:D")], 10)
    assert len(feed.connections) == 1
    feed.send('{"type":"error","msg":"Subscribing to too many symbols: FEED:D"}')
    feed.connections[-1].close()
    eventually(lambda: len(wishes()) == 8, 30)
    assert wishes()[5:] == [("subscribe", symbol) for symbol in ("FEED:B", "FEED:C", "FEED:D")]
    environment.unlink()
    output = finish(producer)
    assert "the symbols stay as they are: wrong settings" in output and "is no symbol" in output
    assert "FEED:D, subscription rejected" in output


def test_the_job_of_dagster_changes_symbols_and_says_where_that_failed(
    stack: Stack, feed: Feed, product: Settings, monkeypatch: pytest.MonkeyPatch
):
    def succeeds() -> bool:
        load_settings.cache_clear()
        return change_symbols.execute_in_process(raise_on_error=False).success

    monkeypatch.chdir(stack.home.parent)
    environment = stack.home.parent / ".env"
    environment.write_text("SYMBOLS=FEED:A")
    producer = start_producer(stack, feed)
    eventually(lambda: len(feed.received) == 1, 30)
    environment.write_text("SYMBOLS=FEED:A,FEED:B")
    assert succeeds()
    assert feed.received[1:] == [{"type": "subscribe", "symbol": "FEED:B"}]
    finish(producer)
    environment.unlink()
    assert not succeeds()


def volumes(stack: Stack, count: int) -> list[float]:
    """Of the first trades in the topic, in their order; there are no more than `count`."""
    done = stack.command("consume", "--from-beginning", "--limit", str(count))
    found = [trade["v"] for line in done.stdout.splitlines() for trade in json.loads(line)["data"]]
    assert sum(end for end in ends(stack)) == count
    return found


def ends(stack: Stack) -> list[int]:
    consumer = Consumer({"bootstrap.servers": stack.kafka, "group.id": "tests"})
    return [consumer.get_watermark_offsets(TopicPartition("stock-ticks", n), timeout=10)[1] for n in range(4)]


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def test_nothing_is_lost_or_doubled_while_the_broker_is_away_and_the_producer_killed(own: Stack, feed: Feed):
    """Each trade is told by its volume; the feed's kernel buffers are empty when the producer dies."""

    def send(count: int) -> None:
        for _ in range(count):
            sent.append(len(sent) + 1.0)
            feed.send(frame(trade("FEED:A", v=sent[-1])))

    def started() -> subprocess.Popen:
        before = len(feed.received)
        process = start_producer(own, feed, SYMBOLS="FEED:A")
        eventually(lambda: len(feed.received) > before, 60)
        return process

    sent: list[float] = []
    assert own.command("up").returncode == 0
    producer = started()
    send(50)
    eventually(lambda: sum(ends(own)) == 50, 30)
    # Acknowledged a moment ago, and not yet forgotten by the spool.
    kill(producer)

    broker = json.loads((own.home / "run" / "kafka.json").read_text())["pid"]
    os.kill(broker, signal.SIGKILL)
    producer = started()
    send(50)
    eventually(lambda: counts(own).get("trades") == 50)
    kill(producer)
    producer = started()
    send(50)
    eventually(lambda: counts(own).get("trades") == 50)
    assert own.command("up").returncode == 0
    eventually(lambda: sum(ends(own)) == 150, 60)
    send(50)
    eventually(lambda: sum(ends(own)) == 200, 60)
    output = finish(producer)
    assert "records of the spool were in Kafka already" in output
    assert volumes(own, 200) == sent


def test_a_topic_that_was_deleted_is_created_again_and_gets_what_was_not_acknowledged(own: Stack, feed: Feed):
    assert own.command("up").returncode == 0
    producer = start_producer(own, feed, SYMBOLS="FEED:A")
    eventually(lambda: feed.received, 60)
    feed.send(frame(trade("FEED:A", v=1.0)))
    eventually(lambda: sum(ends(own)) == 1, 30)
    admin = AdminClient({"bootstrap.servers": own.kafka})
    admin.delete_topics(["stock-ticks"])["stock-ticks"].result()
    feed.send(frame(trade("FEED:A", v=2.0)))
    eventually(lambda: counts(own).get("delivered", 0) >= 2, 120)
    finish(producer)
    assert volumes(own, 1) == [2.0]


def test_what_kafka_refuses_is_left_out_and_said(own: Stack, feed: Feed):
    assert own.command("up").returncode == 0
    limit = ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ConfigResource.Type.TOPIC, "stock-ticks", incremental_configs=[limit])
    admin = AdminClient({"bootstrap.servers": own.kafka})
    admin.incremental_alter_configs([topic])[topic].result(20)
    producer = start_producer(own, feed, SYMBOLS="FEED:A")
    eventually(lambda: feed.received, 60)
    feed.send(frame(trade("FEED:A", v=1.0)))
    eventually(lambda: sum(ends(own)) == 1, 30)
    # Texts that no compression makes shorter than the limit.
    feed.send(frame(trade("FEED:A", c=[uuid4().hex for _ in range(100)])))
    eventually(lambda: counts(own).get("undelivered") == 1, 30)
    feed.send(frame(trade("FEED:A", v=2.0)))
    eventually(lambda: sum(ends(own)) == 2, 30)
    assert "Kafka refuses record" in finish(producer)
    assert volumes(own, 2) == [1.0, 2.0]
    assert len(Spool(own.home / "producer" / "spool.sqlite", 10)) == 0


def test_a_full_spool_holds_the_feed_back_and_goes_on_when_there_is_room(own: Stack, feed: Feed):
    assert own.command("up").returncode == 0
    broker = json.loads((own.home / "run" / "kafka.json").read_text())["pid"]
    os.kill(broker, signal.SIGKILL)
    producer = start_producer(own, feed, SYMBOLS="FEED:A", SPOOL_LIMIT_MB="1")
    eventually(lambda: feed.received, 60)
    count = 100
    for number in range(count):
        feed.send(frame(*[trade("FEED:A", v=number + 0.0, c=["x" * 60])] * 200))
    eventually(lambda: json.loads((own.home / "run" / "producer.json").read_text())["state"] == "spool full", 30)
    assert own.command("up").returncode == 0
    eventually(lambda: sum(ends(own)) == count, 60)
    output = finish(producer)
    assert "SPOOL_LIMIT_MB is 1" in output
    assert volumes(own, count) == [number + 0.0 for number in range(count) for _ in range(200)]


def test_an_unreachable_broker_is_waited_for(stack: Stack, feed: Feed):
    producer = start_producer(stack, feed, KAFKA_BOOTSTRAP_SERVERS=f"localhost:{free_port()}")
    time.sleep(9)
    assert producer.poll() is None
    output = finish(producer)
    assert "kafka_bootstrap_servers" in output
    assert "Traceback" not in output
