"""Finnhub's WebSocket: connect, subscribe, stay connected.

Finnhub allows one connection for each token and drops both when there is a second one, so there is never
more than one here. Protocol: Finnhub's WebSocket documentation.
"""

import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from urllib.parse import quote, urlsplit

import websocket
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set
from tenacity.nap import sleep_using_event
from tenacity.wait import wait_random_exponential

from stock_pipeline.errors import FinnhubRefused
from stock_pipeline.ingest.gaps import FeedWatch

log = logging.getLogger(__name__)

PING_INTERVAL = 10.0
"""Seconds between two pings, whose answers say until when a quiet feed has come."""

PING_PATIENCE = 9.0
"""A connection on which nothing comes for this many seconds after a ping is dead, even if nobody closed it."""

CONNECT_PATIENCE = 15.0

HEALTHY_AFTER = 30.0
"""A connection that lasted this many seconds was a good one: the next attempts begin without back-off."""

FIRST_PAUSE, MAX_PAUSE = 1.0, 30.0
"""Most seconds between the first two attempts to connect, and between any two: each pause is a random part of what may
be twice as long as the one before."""

ADVICE = {
    401: "the token is not accepted: check finnhub_token",
    403: "the token may not do this: check finnhub_token and the plan",
    429: "too many connections: only one is allowed for each token; is another program using it?",
}


class FinnhubClient:
    """One connection at a time to `url`, renewed until `stop` is set.

    Args:
        on_frame: gets the bytes of each frame and the time of its receipt in UNIX milliseconds; gives the time of the
            newest trade in it, UNIX milliseconds, None where there is none.
        on_state: gets a word or two on what the connection does.
        watch: learns when there is a connection and when there is none.
    """

    def __init__(
        self,
        url: str,
        token: str,
        symbols: Sequence[str],
        stop: threading.Event,
        on_frame: Callable[[bytes, int], int | None],
        on_state: Callable[[str], None],
        watch: FeedWatch,
    ) -> None:
        self._url = url
        self._token = token
        self._symbols = list(symbols)
        self._subscribing = threading.Lock()
        self._stop = stop
        self._on_frame = on_frame
        self._on_state = on_state
        self._watch = watch
        self._failure: BaseException | None = None
        self._app: _App | None = None
        self._socket: websocket.WebSocket | None = None
        self.connections = 0

    def run(self) -> None:
        """Receive frames until stopped.

        Raises:
            Exception: whatever `on_frame` raised.
        """
        threading.Thread(target=self._close_on_stop, daemon=True).start()
        while not self._stop.is_set():
            retrying = Retrying(
                retry=retry_if_exception_type(FinnhubRefused),
                wait=wait_random_exponential(multiplier=FIRST_PAUSE, max=MAX_PAUSE),
                sleep=sleep_using_event(self._stop),
                stop=stop_when_event_set(self._stop),
                before_sleep=self._say,
                retry_error_callback=lambda _: None,
            )
            for attempt in retrying:
                with attempt:
                    if not self._stop.is_set():
                        self._connect()

    def change_symbols(self, symbols: Sequence[str]) -> None:
        """Subscribe to these only, from now on and after every reconnection."""
        with self._subscribing:
            gone = [symbol for symbol in self._symbols if symbol not in symbols]
            added = [symbol for symbol in symbols if symbol not in self._symbols]
            # The oldest first: where there are too many, Finnhub refuses the newest.
            self._symbols = [symbol for symbol in self._symbols if symbol not in gone] + added
            try:
                self._send("unsubscribe", gone)
                self._send("subscribe", added)
            except websocket.WebSocketException:
                log.info("there is no connection: the next one subscribes to all of them")

    def _send(self, kind: str, symbols: Iterable[str]) -> None:
        if self._app is not None:
            for symbol in symbols:
                self._app.send(json.dumps({"type": kind, "symbol": symbol}))

    def _say(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0
        log.warning("%s; next try in %.1f s", error, pause)
        self._on_state("waiting for the feed")

    def _connect(self) -> None:
        """One connection from handshake to end.

        Raises:
            FinnhubRefused: it did not come about, or broke soon.
        """
        host = urlsplit(self._url).netloc
        self._failure = None
        self._app = _App(
            f"{self._url}?token={quote(self._token, safe='')}",
            on_open=self._subscribe,
            on_message=self._receive,
            on_pong=self._answered,
            on_error=self._note,
        )
        began = time.monotonic()
        websocket.setdefaulttimeout(CONNECT_PATIENCE)
        # UTF-8 is checked by the reader of the frame, which keeps what is not.
        self._app.run_forever(
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_PATIENCE,
            skip_utf8_validation=True,
            sslopt={"cert_reqs": ssl.CERT_REQUIRED},
        )
        if self._socket is not None and self._socket.sock is not None:
            # After the server's close frame websocket-client leaves it open, and there may be only one connection.
            self._socket.sock.close()
        self._socket = None
        failure = self._failure
        if isinstance(failure, _HandlerFailed):
            raise failure.cause
        if self._stop.is_set():
            return
        lasted = time.monotonic() - began
        reason = _explain(failure)
        self._watch.disconnected(time.time(), self._watch.complete_until, reason.replace(self._token, "***"))
        if lasted < HEALTHY_AFTER:
            raise FinnhubRefused(f"no lasting connection to {host}: {reason}")
        log.warning("connection to %s lost after %.0f s: %s", host, lasted, reason)
        self._on_state("reconnecting")

    def _close_on_stop(self) -> None:
        self._stop.wait()
        if self._app is not None:
            self._app.close()

    def _subscribe(self, app: websocket.WebSocketApp) -> None:
        self.connections += 1
        self._socket = app.sock
        with self._subscribing:
            self._send("subscribe", self._symbols)
        log.info("connected to %s, subscribed to %d symbols", urlsplit(self._url).netloc, len(self._symbols))
        self._watch.connected(time.time())
        self._on_state("running")

    def _answered(self, app: websocket.WebSocketApp, data: bytes) -> None:
        _show_life(app)
        # A server may send answers that nobody asked for.
        with suppress(ValueError):
            self._watch.took_in_until(float(data), time.time())

    def _receive(self, app: websocket.WebSocketApp, frame: str | bytes) -> None:
        received_ms = time.time_ns() // 1_000_000
        raw = frame if isinstance(frame, bytes) else frame.encode()
        try:
            newest_ms = self._on_frame(raw, received_ms)
        except Exception as error:  # noqa: BLE001 - kept, and raised again by run()
            # websocket-client logs what a callback raises and goes on: the frame would be lost.
            self._failure = _HandlerFailed(error)
            app.close()
        else:
            _show_life(app)
            if newest_ms is not None:
                self._watch.took_in_until(newest_ms / 1000, received_ms / 1000)

    def _note(self, _app: websocket.WebSocketApp, error: BaseException) -> None:
        if not isinstance(self._failure, _HandlerFailed):
            self._failure = error


class _App(websocket.WebSocketApp):
    """Its pings bear the time at which they are sent, UNIX seconds, and so do their answers."""

    @property
    def ping_payload(self) -> str:
        return repr(time.time())

    @ping_payload.setter
    def ping_payload(self, _given: str) -> None:
        """What websocket-client would send each time."""


def _show_life(app: websocket.WebSocketApp) -> None:
    """The answer to the newest ping may stand in a queue behind what came now, and that does not make it late."""
    app.last_pong_tm = app.last_ping_tm


class _HandlerFailed(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _explain(failure: BaseException | None) -> str:
    if isinstance(failure, websocket.WebSocketBadStatusException):
        return f"HTTP {failure.status_code}, {ADVICE.get(failure.status_code, 'the server refused the handshake')}"
    if failure is None:
        return "the server closed the connection"
    return str(failure) or type(failure).__name__
