"""A server that speaks Finnhub's WebSocket protocol and replays recorded trades.

Finnhub's rules that it keeps: a token is needed (HTTP 401), one connection for each token (a second one drops
both), 50 symbols at most, `ping` messages while there are no trades, several trades of several symbols in a frame.

The recording is 9,999 consecutive trades of Binance's BTCUSDT perpetual, 21 to 22 February 2020, recorded by Tardis
(test data of nautechsystems/nautilus_trader). The other symbols are made from it.
"""

import asyncio
import csv
import gzip
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from stock_pipeline.errors import PortTaken, SettingsError
from stock_pipeline.ingest.gaps import SYMBOL_LIMIT
from stock_pipeline.services.service import Service
from stock_pipeline.settings import Settings

log = logging.getLogger(__name__)

RECORDING = Path(__file__).parent / "btcusdt_trades.csv.gz"

FRAME_LIMIT = 100
"""Most trades in one frame."""

PING_INTERVAL = 10.0
"""Seconds without a trade after which a connection gets a ping message."""

SETTLE = 0.5
"""The replay begins when subscriptions have come to rest for this many seconds, so that none misses its start."""

WAKE_UP = 0.02
"""Seconds between two looks at which trades are due."""


@dataclass(frozen=True)
class RecordedTrade:
    """A trade as recorded: symbol, price, times in UNIX milliseconds, volume, condition codes."""

    s: str
    p: float
    t: int
    v: float
    c: list[str] | None
    arrived_ms: int


def read_trades(path: Path) -> list[RecordedTrade]:
    """The trades of a CSV or CSV.gz file with the header s,t,p,v and optionally c, arrived_ms.

    Raises:
        SettingsError: the file is missing, or a line is wrong.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    trades = []
    try:
        with opened(path, "rt", newline="") as source:
            rows = csv.DictReader(source)
            missing = {"s", "t", "p", "v"} - set(rows.fieldnames or ())
            if missing:
                raise SettingsError(f"--trades: {path} lacks the columns {', '.join(sorted(missing))}")
            for row in rows:
                codes = row.get("c")
                trades.append(
                    RecordedTrade(
                        s=row["s"],
                        p=float(row["p"]),
                        t=int(row["t"]),
                        v=float(row["v"]),
                        c=codes.split() if codes else None,
                        arrived_ms=int(row.get("arrived_ms") or row["t"]),
                    )
                )
    except OSError as error:
        raise SettingsError(f"--trades: {path} cannot be read: {error}") from error
    except (ValueError, TypeError) as error:
        raise SettingsError(f"--trades: {path}, line {len(trades) + 2}: {error}") from error
    if not trades:
        raise SettingsError(f"--trades: {path} holds no trade")
    return trades


STOCKS = {"AAPL": 190.0, "MSFT": 410.0, "TSLA": 250.0}
"""Simulated stocks and their price at the start; they move with the recording."""

STOCK_CONDITIONS = (["1"], ["1"], ["1"], ["1", "12"], ["12"], ["1", "8"], ["1", "24"])


def with_companions(recording: Sequence[RecordedTrade]) -> list[RecordedTrade]:
    """The recording and, beside it, simulated stocks with conditions and a forex pair without volume."""
    chance = random.Random(1582329602111)
    first = recording[0].p
    trades = []
    for trade in recording:
        trades.append(trade)
        move = trade.p / first
        for symbol, price in STOCKS.items():
            if chance.random() < 0.15:
                cents = round(price * move * chance.uniform(0.9999, 1.0001), 2)
                conditions = chance.choice(STOCK_CONDITIONS)
                volume = float(chance.randint(1, 99) if "12" in conditions else 100 * chance.randint(1, 9))
                trades.append(RecordedTrade(symbol, cents, trade.t, volume, conditions, trade.arrived_ms))
        if chance.random() < 0.1:
            rate = round(1.1 * move * chance.uniform(0.9999, 1.0001), 5)
            trades.append(RecordedTrade("IC MARKETS:1", rate, trade.t, 0.0, None, trade.arrived_ms))
    return trades


@dataclass(frozen=True)
class Replay:
    """When each trade is sent, and what time it bears.

    Args:
        rate: trades a second; None: as recorded, `speed` times as fast.
    """

    trades: Sequence[RecordedTrade]
    rate: float | None
    speed: float
    once: bool
    original_times: bool

    def schedule(self, start_ms: float) -> Iterator[tuple[float, dict[str, Any]]]:
        """When to send, in UNIX milliseconds, and the trade as Finnhub writes it.

        Trades of one recorded millisecond stay in one millisecond. Each lap begins where the last one ended.
        """
        first, last = self.trades[0], self.trades[-1]
        lap_ms = len(self.trades) * 1000 / self.rate if self.rate else (last.arrived_ms - first.t + 1000) / self.speed
        lap = 0
        while lap == 0 or not self.once:
            lap_start = start_ms + lap * lap_ms
            for number, trade in enumerate(self.trades):
                if self.rate:
                    moved = due = lap_start + number * 1000 / self.rate
                else:
                    moved = lap_start + (trade.t - first.t) / self.speed
                    due = lap_start + (trade.arrived_ms - first.t) / self.speed
                yield due, self._as_finnhub(trade, trade.t if self.original_times else int(moved))
            lap += 1

    @staticmethod
    def _as_finnhub(trade: RecordedTrade, time_ms: int) -> dict[str, Any]:
        return {"c": trade.c, "p": trade.p, "s": trade.s, "t": time_ms, "v": trade.v}


@dataclass(eq=False)
class _Client:
    connection: ServerConnection
    token: str
    symbols: set[str] = field(default_factory=set)
    told_at: float = field(default_factory=time.monotonic)

    async def send(self, content: dict[str, Any]) -> None:
        self.told_at = time.monotonic()
        await self.connection.send(json.dumps(content, separators=(",", ":")))

    async def send_error(self, text: str) -> None:
        await self.send({"type": "error", "msg": text})


class Simulator:
    """The server: `serve_until` runs it. Counts, in the service: connections, trades, frames."""

    def __init__(self, replay: Replay, service: Service) -> None:
        self._replay = replay
        self._service = service
        self._clients: dict[ServerConnection, _Client] = {}
        self._subscribed_at: float | None = None

    async def serve_until_stopped(self, host: str, port: int) -> None:
        """Serve until the service is told to stop, or until the replay's end where it runs once.

        Raises:
            PortTaken: another program listens there.
        """
        try:
            server = await serve(self._talk, host, port, process_request=self._check_token, max_size=65536)
        except OSError as error:
            raise PortTaken(
                f"simulator: port {port} is taken: set SIMULATOR_PORT, or pass --port ({error.strerror})"
            ) from error
        async with server:
            self._service.state = "running"
            log.info("simulator at ws://%s:%d with %d recorded trades", host, port, len(self._replay.trades))
            pings = asyncio.create_task(self._ping())
            stop = asyncio.create_task(self._until_stopped())
            feed = asyncio.create_task(self._feed())
            done, _ = await asyncio.wait((feed, stop, pings), return_when=asyncio.FIRST_COMPLETED)
            self._service.stop.set()
            for task in (feed, pings):
                task.cancel()
        for task in done:
            task.result()

    async def _until_stopped(self) -> None:
        await asyncio.to_thread(self._service.stop.wait)

    def _check_token(self, connection: ServerConnection, request: Request) -> Response | None:
        token = parse_qs(urlsplit(request.path).query).get("token", [""])[0]
        if not token:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "Invalid API key\n")
        return None

    async def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        token = parse_qs(urlsplit(connection.request.path).query)["token"][0]
        rivals = [client for client in self._clients.values() if client.token == token]
        self._service.counts["connections"] += 1
        if rivals:
            log.warning("a second connection with one token: both are dropped")
            for other in (*(client.connection for client in rivals), connection):
                await other.close(1008, "only one connection for each token")
            return
        client = self._clients[connection] = _Client(connection, token)
        try:
            async for text in connection:
                await self._obey(client, text)
        except ConnectionClosed:
            log.info("a client left without a closing handshake")
        finally:
            del self._clients[connection]

    async def _obey(self, client: _Client, text: str | bytes) -> None:
        try:
            wish = json.loads(text)
            kind, symbol = wish["type"], wish["symbol"]
        except (ValueError, TypeError, KeyError):
            return await client.send_error("Invalid message: expected type and symbol")
        if not isinstance(symbol, str):
            return await client.send_error("Invalid symbol")
        if kind == "unsubscribe":
            client.symbols.discard(symbol)
        elif kind != "subscribe":
            await client.send_error("Invalid message type")
        elif len(client.symbols | {symbol}) > SYMBOL_LIMIT:
            await client.send_error(f"Subscribing to too many symbols, {symbol[:64]} is refused")
        else:
            client.symbols.add(symbol)
            self._subscribed_at = time.monotonic()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(1)
            for client in list(self._clients.values()):
                if time.monotonic() - client.told_at > PING_INTERVAL:
                    await self._tell(client, {"type": "ping"})

    async def _feed(self) -> None:
        while self._subscribed_at is None or time.monotonic() - self._subscribed_at < SETTLE:
            await asyncio.sleep(0.05)
        async for trades in self._due():
            for client in list(self._clients.values()):
                mine = [trade for trade in trades if trade["s"] in client.symbols]
                for start in range(0, len(mine), FRAME_LIMIT):
                    frame = {"data": mine[start : start + FRAME_LIMIT], "type": "trade"}
                    await self._tell(client, frame)
                    self._service.counts["frames"] += 1
            self._service.counts["trades"] += len(trades)

    async def _tell(self, client: _Client, content: dict[str, Any]) -> None:
        try:
            await client.send(content)
        except ConnectionClosed:
            # Its own task takes it off the list; what it was to get is lost, as with Finnhub.
            self._service.counts["unsent"] += len(content.get("data", ()))

    async def _due(self) -> AsyncIterator[list[dict[str, Any]]]:
        """The trades that have come due since the last look."""
        waiting: list[dict[str, Any]] = []
        for due_ms, trade in self._replay.schedule(time.time() * 1000):
            while time.time() * 1000 < due_ms:
                if waiting:
                    yield waiting
                    waiting = []
                await asyncio.sleep(max(WAKE_UP, due_ms / 1000 - time.time()))
            waiting.append(trade)
            if len(waiting) >= 10 * FRAME_LIMIT:
                yield waiting
                waiting = []
                await asyncio.sleep(0)
        yield waiting


def simulate(settings: Settings, replay: Replay, host: str, port: int) -> None:
    """Run the simulator until SIGTERM or SIGINT, or until the end of a replay that runs once."""

    name = "simulator" if port == settings.simulator_port else f"simulator-{port}"
    with Service(name, settings, in_database=False) as service:
        asyncio.run(Simulator(replay, service).serve_until_stopped(host, port))
