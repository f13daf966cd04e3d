"""From the feed to the spool: each frame is split by symbol, checked, and encoded or dead-lettered."""

import logging
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stock_pipeline.errors import SettingsError, SpoolFull
from stock_pipeline.ingest.dead_letters import cut_to_fit
from stock_pipeline.ingest.finnhub import FinnhubClient
from stock_pipeline.ingest.gaps import FeedWatch, GapJournal, journal_path, tell_gaps
from stock_pipeline.ingest.sender import Sender
from stock_pipeline.ingest.spool import Record, Spool, spool_path
from stock_pipeline.ingest.trade import Rejected, read_frame
from stock_pipeline.services.service import Heartbeat, Service, record_path
from stock_pipeline.settings import Settings, load_settings

log = logging.getLogger(__name__)

HELD_BACK = 0.1
"""Seconds between two attempts to put a frame into a full spool."""

LOOK = 1.0
"""Seconds between two looks for silent symbols."""

LOOKS_PER_TELLING = 5
"""How many looks there are between two tellings of gaps to PostgreSQL."""


class TradeProducer:
    """Turns frames into records and keeps them in the spool, from which a `Sender` takes them.

    Counts, in the service: frames, trades, messages, dead_letters, errors.
    """

    def __init__(self, settings: Settings, service: Service, watch: FeedWatch, spool: Spool, sender: Sender) -> None:
        self._settings = settings
        self._service = service
        self._watch = watch
        self._spool = spool
        self._sender = sender

    def handle(self, raw: bytes, received_ms: int) -> int | None:
        """Take in one frame; gives the time of its newest trade, UNIX milliseconds, None where there is none."""
        counts = self._service.counts
        frame = read_frame(raw, received_ms)
        if frame.control is not None and frame.control["type"] == "error":
            counts["errors"] += 1
            text = str(frame.control.get("msg"))
            log.error("Finnhub: %s", text[:500])
            self._watch.rejected(text, received_ms / 1000)
        topic = self._settings.kafka_topic
        records = [Record(topic, m.symbol.encode(), m.value, received_ms) for m in frame.messages]
        records += [self._dead_letter(rejected, received_ms) for rejected in frame.rejected]
        if records and not self._keep(records):
            return None
        for message in frame.messages:
            self._watch.received(message.symbol, received_ms / 1000)
            counts["trades"] += message.trades
        counts["frames"] += 1
        counts["messages"] += len(frame.messages)
        counts["dead_letters"] += len(frame.rejected)
        return max((message.newest_ms for message in frame.messages), default=None)

    def _dead_letter(self, rejected: Rejected, received_ms: int) -> Record:
        value, cut = cut_to_fit(rejected.raw)
        headers = {"reason": rejected.reason, "origin": "websocket", **cut}
        return Record(self._settings.dead_letter_topic, None, value, received_ms, headers)

    def _keep(self, records: Sequence[Record]) -> bool:
        """Put records into the spool; while it is full, hold the feed back rather than lose trades.

        False where the producer was stopped meanwhile, and they are lost.
        """
        is_held = False
        while True:
            try:
                self._spool.append(records)
            except SpoolFull as error:
                if not is_held:
                    is_held = True
                    log.error("the feed waits: %s", error)
                if self._service.stop.wait(HELD_BACK):
                    self._service.counts["undelivered"] += len(records)
                    log.error("%d records are lost: the producer stops, and they are not in the spool", len(records))
                    return False
                self._service.state = "spool full"
                self._watch.held_back(time.time())
            else:
                self._sender.wake()
                return True


@contextmanager
def watch_feed(settings: Settings, service: Service, last_alive: float | None) -> Iterator[FeedWatch]:
    """The watch, and a thread that lets it look and tells PostgreSQL, for as long as the producer runs.

    Counts, in the service: gaps. Its figures: complete_until, UNIX seconds.

    Args:
        last_alive: until when the previous producer had taken in everything, UNIX seconds; None: there was none.
    """
    journal = GapJournal(journal_path(settings))
    watch = FeedWatch(settings.symbols, journal)
    watch.started(time.time(), last_alive)
    ended = threading.Event()

    def look_and_tell() -> None:
        looks = 0
        while not ended.wait(LOOK):
            # Before the look, which may take a while: what is late here makes a gap too long, never too short.
            service.figures["complete_until"] = watch.complete_until
            watch.look(time.time())
            service.counts["gaps"] = watch.opened
            if looks % LOOKS_PER_TELLING == 0:
                tell_gaps(settings, journal)
            looks += 1

    thread = threading.Thread(target=look_and_tell, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()
        service.counts["gaps"] = watch.opened
        tell_gaps(settings, journal)
        journal.shut()


def follow_settings(service: Service, client: FinnhubClient, watch: FeedWatch) -> None:
    """Let SIGHUP change the symbols to those of the settings as they are then. For the main thread."""
    asked = threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: asked.set())

    def change_symbols() -> None:
        while not service.stop.is_set():
            if not asked.wait(LOOK):
                continue
            asked.clear()
            load_settings.cache_clear()
            try:
                symbols = load_settings().symbols
            except SettingsError as error:
                log.error("the symbols stay as they are: %s", error)
                continue
            watch.change_symbols(symbols, time.time())
            client.change_symbols(symbols)
            service.symbols = list(symbols)
            log.info("subscribed to %d symbols: %s", len(symbols), ", ".join(symbols))

    threading.Thread(target=change_symbols, daemon=True).start()


def produce(settings: Settings) -> None:
    """Run the producer until SIGTERM or SIGINT; SIGHUP takes over changed symbols.

    Raises:
        AlreadyRunning: there is a producer in this home.
    """
    # Read before the service writes its own.
    previous = Heartbeat.read(record_path(settings, "producer"))
    last_alive = previous.figures.get("complete_until", previous.beat_at) if previous else None
    service = Service("producer", settings)
    if last_alive is not None:
        # In its first heartbeat already: one that dies at its start leaves the gap as long as it is.
        service.figures["complete_until"] = last_alive
    with service, watch_feed(settings, service, last_alive) as watch:
        service.symbols = list(settings.symbols)
        spool = Spool(spool_path(settings), settings.spool_limit_mb)
        sender = Sender(settings, service)
        sender.start()
        client = FinnhubClient(
            settings.feed_url,
            settings.feed_token,
            settings.symbols,
            service.stop,
            TradeProducer(settings, service, watch, spool, sender).handle,
            lambda state: setattr(service, "state", state),
            watch,
        )
        follow_settings(service, client, watch)
        try:
            client.run()
        finally:
            watch.stopped(watch.complete_until)
            sender.close()
            spool.close()
        if sender.failure is not None:
            raise sender.failure
