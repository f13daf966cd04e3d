"""The feed of the fault test: the product's simulator, with trades that tell themselves, behind a line that fails.

Every trade's volume is its number, and symbol, price and time follow from the number. So the record of what was to be
sent is how many there were and when the first was due.
"""

import asyncio
import os
import threading
import time
from array import array
from collections.abc import Callable, Coroutine, Iterator
from http import HTTPStatus
from typing import Any, TypeVar

import numpy as np
from websockets.exceptions import ConnectionClosed

from stock_pipeline.ingest.simulator import Simulator
from stock_pipeline.services.service import Service
from stock_pipeline.settings import Settings

SYMBOLS = [f"BINANCE:F{number:02}" for number in range(20)]

GARBAGE = ("{", '{"type":"trade","data":[{"s":"BINANCE:F00"}]}', "\x00" * 50, b"\xff\xfe\x00", "[]", "9" * 100_000)

CHUNK = 65_536

Number = TypeVar("Number", float, np.ndarray)


class Numbered:
    """A replay of trades, `rate` a second until `is_over`; of one symbol none shares its millisecond with another.

    Args:
        ago: seconds by which the first trade is older than the moment when it is sent.
        speed: seconds of the trades' time that pass in a second.
    """

    trades = ()

    def __init__(self, rate: float, ago: float = 0.0, speed: float = 1.0) -> None:
        self.rate = rate
        self._ago = ago
        self._speed = speed
        self.first_due = 0.0
        """When number 0 was due, UNIX milliseconds."""
        self.count = 0
        self.is_over = False

    def due(self, number: Number) -> Number:
        """When a trade is to be sent, UNIX milliseconds."""
        return self.first_due + number * 1000 / self.rate

    def time(self, number: Number) -> Number:
        """What time a trade bears, UNIX milliseconds, before it is rounded down."""
        return self.first_due - self._ago * 1000 + number * 1000 / self.rate * self._speed

    def schedule(self, start_ms: float) -> Iterator[tuple[float, dict[str, Any]]]:
        self.first_due = start_ms
        while not self.is_over:
            number, self.count = self.count, self.count + 1
            symbol, time_ms = SYMBOLS[number % len(SYMBOLS)], int(self.time(number))
            yield self.due(number), {"c": None, "p": price(number), "s": symbol, "t": time_ms, "v": float(number + 1)}


def price(number: int) -> float:
    return 100 + number * 7919 % 10_007 / 100


class Market(Simulator):
    """The simulator, which notes the numbers of all trades that it sent, and when, UNIX milliseconds."""

    def __init__(self, replay: Numbered, service: Service) -> None:
        super().__init__(replay, service)
        self.sent, self.sent_at = array("q"), array("d")

    async def garble(self) -> None:
        for client in list(self._clients.values()):
            for text in GARBAGE:
                try:
                    await client.connection.send(text)
                except ConnectionClosed:
                    break

    async def _tell(self, client: Any, content: dict[str, Any]) -> None:
        numbers = [int(trade["v"]) - 1 for trade in content.get("data", ())]
        unsent, now = self._service.counts["unsent"], time.time() * 1000
        await super()._tell(client, content)
        if self._service.counts["unsent"] == unsent:
            self.sent.extend(numbers)
            self.sent_at.extend([now] * len(numbers))


class Line:
    """Passes bytes between clients and the market, as badly as it is told."""

    def __init__(self, market_port: int) -> None:
        self._market_port = market_port
        self._ends: set[asyncio.StreamWriter] = set()
        self._is_frozen: set[asyncio.StreamWriter] = set()
        self.refuse: HTTPStatus | None = None
        self.bytes_per_second: float | None = None

    async def serve(self, port: int) -> None:
        server = await asyncio.start_server(self._admit, "127.0.0.1", port)
        async with server:
            await server.serve_forever()

    async def _admit(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self.refuse is not None:
            await reader.readuntil(b"\r\n\r\n")
            head = (
                f"HTTP/1.1 {self.refuse.value} {self.refuse.phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            client.write(head.encode())
            await client.drain()
            client.close()
            return
        try:
            answers, market = await asyncio.open_connection("127.0.0.1", self._market_port)
        except ConnectionError:
            # The market has closed for good.
            client.transport.abort()
            return
        self._ends.add(client)
        pumps = [
            asyncio.create_task(self._pump(reader, market)),
            asyncio.create_task(self._pump(answers, client, True)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        market.transport.abort()
        while client in self._is_frozen:
            await asyncio.sleep(0.1)
        client.transport.abort()
        self._ends.discard(client)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, is_feed: bool = False) -> None:
        try:
            while data := await source.read(CHUNK):
                if is_feed and target in self._is_frozen:
                    return
                target.write(data)
                await target.drain()
                if is_feed and self.bytes_per_second is not None:
                    await asyncio.sleep(len(data) / self.bytes_per_second)
        except ConnectionError:
            return

    async def cut(self) -> None:
        """End every connection at once."""
        for end in list(self._ends):
            end.transport.abort()

    async def freeze(self) -> None:
        """From now on nothing comes through what is connected, and nothing says so."""
        self._is_frozen |= self._ends

    async def thaw(self) -> None:
        self._is_frozen.clear()

    async def garble(self) -> None:
        """Send what is no WebSocket frame."""
        for end in list(self._ends):
            end.write(os.urandom(200))


class Exchange:
    """Market and line in a thread of their own."""

    def __init__(self, settings: Settings, replay: Numbered, market_port: int, line_port: int) -> None:
        self.replay = replay
        self.service = Service("market", settings, in_database=False)
        self.market = Market(self.replay, self.service)
        self.line = Line(market_port)
        self._ports = market_port, line_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        market_port, line_port = self._ports
        line = asyncio.create_task(self.line.serve(line_port))
        await self.market.serve_until_stopped("127.0.0.1", market_port)
        line.cancel()

    def do(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(timeout=30)

    def stop_sending(self) -> int:
        """Let the last trade be sent; gives its number."""
        self.replay.is_over = True
        time.sleep(1)
        return self.replay.count - 1

    def stop(self) -> None:
        self.service.stop.set()
        self._thread.join(timeout=30)
