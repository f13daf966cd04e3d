"""The producer: trades a second from WebSocket frames to messages that Kafka has acknowledged.

The frames are made beforehand and sent as fast as the producer takes them.
"""

import json
import time
from collections.abc import Sequence
from threading import Thread

import psutil
from confluent_kafka import Consumer, TopicPartition
from websockets.sync.server import Server, ServerConnection, serve

from benchmarks.market import Market
from benchmarks.parts import processor_seconds
from stock_pipeline.local.component import free_port
from stock_pipeline_tests.conftest import Stack, eventually

TRADES = {1: 60_000, 10: 350_000, 100: 800_000}
"""How many are sent with so many in a frame: five or six seconds of each."""

SETTLE = 3.0
"""Seconds for the producer to subscribe to all symbols."""

PATIENCE = 300.0

POLL = 0.1
"""Seconds between two looks at what is acknowledged."""


def frames(market: Market, size: int) -> list[str]:
    """All trades, as Finnhub sends them."""
    rows = market.frame().assign(c=None).to_dict("records")
    return [
        json.dumps({"data": rows[begin : begin + size], "type": "trade"}, separators=(",", ":"))
        for begin in range(0, market.trades, size)
    ]


class Blast:
    """A server that sends its frames to the first client, once it is told to."""

    def __init__(self, frames: Sequence[str]) -> None:
        self.began = 0.0
        self._frames = frames
        self.port = free_port()
        self._server: Server = serve(self._talk, "127.0.0.1", self.port, compression=None, ping_interval=None)
        Thread(target=self._server.serve_forever, daemon=True).start()

    def _talk(self, connection: ServerConnection) -> None:
        time.sleep(SETTLE)
        self.began = time.perf_counter()
        for frame in self._frames:
            connection.send(frame)
        # Until the client leaves; what it says does not matter.
        for _ in connection:
            pass

    def close(self) -> None:
        self._server.shutdown()


def measure(stack: Stack, size: int, topic: str) -> tuple[float, float]:
    """Trades a second, and microseconds of a processor that the producer used for each, with so many in a frame.

    Args:
        topic: a new one.
    """
    trades = TRADES[size]
    market = Market(trades, 50, time.time_ns() // 1_000_000)
    sent = frames(market, size)
    blast = Blast(sent)
    consumer = Consumer({"bootstrap.servers": stack.kafka, "group.id": "benchmark"})

    def acknowledged() -> int:
        places = [TopicPartition(topic, number) for number in consumer.list_topics(topic).topics[topic].partitions]
        return sum(consumer.get_watermark_offsets(place, cached=False)[1] for place in places)

    symbols = ",".join(market.frame()["s"].unique())
    feed = {"FINNHUB_URL": f"ws://127.0.0.1:{blast.port}", "FINNHUB_TOKEN": "benchmark", "SYMBOLS": symbols}
    process = psutil.Process(stack.start("produce", KAFKA_TOPIC=topic, **feed).pid)
    try:
        messages = sum(len({trade["s"] for trade in json.loads(frame)["data"]}) for frame in sent)
        eventually(lambda: blast.began, PATIENCE, POLL)
        used = processor_seconds(process)
        eventually(lambda: acknowledged() >= messages, PATIENCE, POLL)
        seconds = time.perf_counter() - blast.began
        used = processor_seconds(process) - used
    finally:
        stack.stop_started()
        consumer.close()
        blast.close()
    return trades / seconds, used / trades * 1e6
