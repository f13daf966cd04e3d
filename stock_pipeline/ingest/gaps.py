"""When the feed was away: noticed by the producer, kept in its journal, told to PostgreSQL when that is there.

Every symbol is away while the producer is down and while there is no connection: from the newest trade that came, or
the newest ping that was answered, until the next connection. These two follow one another without a break, as one gap.

One symbol is away while its subscription is rejected, and while it is silent for longer than its own rhythm allows.
Allowed is three times its longest recent interval between two messages, and at least a minute. The
longest interval fades: it counts half after an hour and a quarter after two, not counting the time between two
sessions. A silence that ended while the connection was up was perhaps the symbol's own, so it is learned,
but as no more than twice what was allowed: an outage that nobody noticed cannot make the watchdog deaf.

Silence means something only while there is a connection, in market hours, and once 20 intervals are learned. It counts
from the latest of the last trade, the connection and the session's open, and ends with the session at the latest.
"""

import logging
import math
import re
import sqlite3
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psycopg

from stock_pipeline.errors import first_line
from stock_pipeline.ingest.durable_file import open_durable_file
from stock_pipeline.market.instruments import instrument
from stock_pipeline.settings import Settings
from stock_pipeline.sql_files import load_sql

log = logging.getLogger(__name__)

Cause = Literal["disconnected", "silent", "subscription rejected", "producer down"]

LEAST_SILENCE = 60.0
"""Seconds of silence that every symbol is allowed."""

RHYTHMS_ALLOWED = 3.0
"""How many times its longest recent interval a symbol may be silent."""

MOST_LEARNED = 2.0
"""A silence is learned as at most this many times what was allowed."""

INTERVALS_NEEDED = 20
"""Intervals after which the rhythm of a symbol is known."""

HALF_LIFE = 3600.0
"""Seconds after which the longest interval counts half."""

SYMBOL_LIMIT = 50
"""Symbols that Finnhub lets a token of the free plan subscribe to."""

MAX_DETAIL = 500

JOURNAL_PATIENCE = 0.2
"""Seconds for another program that has locked the journal: the feed waits for as long."""

JOURNAL_SCHEMA = """
CREATE TABLE IF NOT EXISTS gap (
    id TEXT PRIMARY KEY,
    symbol TEXT,
    started REAL NOT NULL,
    ended REAL,
    cause TEXT NOT NULL,
    detail TEXT,
    revision INTEGER NOT NULL DEFAULT 1,
    told INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS gap_open ON gap (started) WHERE ended IS NULL;
CREATE INDEX IF NOT EXISTS gap_untold ON gap (started) WHERE told < revision;
"""

COLUMNS = "id, symbol, started, ended, cause, detail, revision"


@dataclass(frozen=True)
class Gap:
    """A row of the journal.

    Attributes:
        symbol: None is every symbol.
        started: UNIX seconds.
        ended: UNIX seconds; None: it lasts.
        revision: grows with each change.
    """

    id: str
    symbol: str | None
    started: float
    ended: float | None
    cause: Cause
    detail: str | None
    revision: int


class GapJournal:
    """The gaps in a file, which is there when PostgreSQL is not; for any number of threads of one process.

    What is written survives the end of the process, however it comes. What cannot be written (a full disk) is kept
    in memory and tried again with every later call: it does not stop the feed.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._unwritten: list[tuple[str, tuple[object, ...]]] = []
        self.is_database_away = False
        """Whether the newest attempt to tell the gaps failed."""
        self._file = open_durable_file(path, JOURNAL_PATIENCE)
        self._file.executescript(JOURNAL_SCHEMA)

    def open(self, symbol: str | None, started: float, cause: Cause, detail: str | None) -> str:
        """Note the start of a gap, UNIX seconds; gives its id."""
        key = str(uuid.uuid4())
        values = (key, symbol, started, cause, None if detail is None else _printable(detail))
        self._write("INSERT INTO gap (id, symbol, started, cause, detail) VALUES (?, ?, ?, ?, ?)", values)
        return key

    def close(self, key: str, ended: float) -> None:
        """Note the end of a gap, UNIX seconds: no earlier than its start. One that has ended stays as it is."""
        self._write(
            "UPDATE gap SET ended = max(started, ?), revision = revision + 1 WHERE id = ? AND ended IS NULL",
            (ended, key),
        )

    def open_gaps(self) -> list[Gap]:
        """The gaps that last."""
        return self._read("ended IS NULL")

    def untold(self) -> list[Gap]:
        """The gaps that changed since they were last told."""
        return self._read("told < revision")

    def told(self, key: str, revision: int) -> None:
        """Note that PostgreSQL knows this revision of the gap."""
        self._write("UPDATE gap SET told = ? WHERE id = ?", (revision, key))

    def shut(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._flush()
            self._file.close()

    def _read(self, condition: str) -> list[Gap]:
        with self._lock:
            self._flush()
            rows = self._file.execute(f"SELECT {COLUMNS} FROM gap WHERE {condition} ORDER BY started, rowid")
            return [Gap(*row) for row in rows]

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        with self._lock:
            self._unwritten.append((statement, values))
            self._flush()

    def _flush(self) -> None:
        while self._unwritten:
            try:
                self._file.execute(*self._unwritten[0])
            except sqlite3.OperationalError as error:
                log.warning("the journal of the feed's gaps cannot be written, tried again later: %s", error)
                return
            del self._unwritten[0]


def _printable(text: str) -> str:
    """The text as every database takes it: a server may send anything."""
    return "".join(sign if sign.isprintable() else " " for sign in text[:MAX_DETAIL])


@dataclass(frozen=True)
class Period:
    """Market hours without a break, or the time between two of them; begin and end in UNIX seconds."""

    is_open: bool
    begins: float
    ends: float


ALWAYS_OPEN = Period(True, -math.inf, math.inf)
NOT_KNOWN = Period(False, -math.inf, -math.inf)


def period_at(calendar_name: str, now: float) -> Period:
    """The period of a calendar in which `now`, UNIX seconds, is.

    The end of an open period may be followed at once by the next, as at midnight in 24/5.
    """
    # A large import, which needs a second: it must not hold up the start of the producer.
    from stock_pipeline.market.sessions import calendar

    sessions = calendar(calendar_name)
    opens, closes = sessions.opens_nanos, sessions.closes_nanos
    nanoseconds = int(now * 1e9)
    index = int(closes.searchsorted(nanoseconds, side="right"))
    if index == len(opens):
        return Period(False, float(closes[-1] / 1e9), math.inf)
    if nanoseconds < opens[index]:
        return Period(False, float(closes[index - 1] / 1e9), float(opens[index] / 1e9))
    first = index
    while first > 0 and closes[first - 1] == opens[first]:
        first -= 1
    return Period(True, float(opens[first] / 1e9), float(closes[index] / 1e9))


@dataclass(slots=True)
class _Pulse:
    """What is known of one symbol; times in UNIX seconds."""

    symbol: str
    calendar: str
    last: float = -math.inf
    intervals: int = 0
    longest: float = 0.0
    longest_at: float = 0.0
    gap: str | None = None
    is_silent: bool = False

    def faded(self, now: float, period: Period) -> float:
        """The longest interval as it counts now, in seconds."""
        age = now - max(self.longest_at, period.begins)
        return self.longest * math.exp2(-max(age, 0.0) / HALF_LIFE)

    def allowed(self, now: float, period: Period) -> float:
        """Seconds that the symbol may be silent."""
        return max(LEAST_SILENCE, RHYTHMS_ALLOWED * self.faded(now, period))

    def learn(self, now: float, period: Period) -> None:
        """Take in the interval from the last trade to now, both in the same open period."""
        interval = min(now - self.last, MOST_LEARNED * self.allowed(now, period))
        self.intervals += 1
        if interval >= self.faded(now, period):
            self.longest, self.longest_at = interval, now


class FeedWatch:
    """What the producer sees of the feed, turned into gaps; safe to call from any thread.

    All times are UNIX seconds.
    """

    def __init__(self, symbols: Sequence[str], journal: GapJournal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._pulses: dict[str, _Pulse] = {}
        self._periods: dict[str, Period] = {}
        self.change_symbols(symbols, -math.inf)
        self._outage: str | None = None
        self._is_connected = False
        self._heard_from = math.inf
        self.complete_until = math.inf
        """Whatever the feed sent until then has been taken in or is in a gap."""
        self.opened = 0
        """Number of gaps opened."""

    def started(self, now: float, last_alive: float | None) -> None:
        """The producer starts; the one before had taken in everything until `last_alive`; None: there was none."""
        with self._lock:
            self.complete_until = now
            for gap in self._journal.open_gaps():
                if gap.symbol is None:
                    self._outage = gap.id
                else:
                    self._journal.close(gap.id, now if last_alive is None else last_alive)
            if last_alive is not None:
                self._begin_outage(last_alive, "producer down", "no heartbeat since")

    def change_symbols(self, symbols: Sequence[str], now: float) -> None:
        """From now on these symbols are subscribed to, and no others."""
        with self._lock:
            for symbol in self._pulses.keys() - set(symbols):
                pulse = self._pulses.pop(symbol)
                if pulse.gap is not None:
                    self._end(pulse, now)
            for symbol in symbols:
                pulse = self._pulses.setdefault(symbol, _Pulse(symbol, instrument(symbol).calendar))
                # Renewed by look() alone, so that no trade waits for a calendar.
                self._periods.setdefault(pulse.calendar, ALWAYS_OPEN if pulse.calendar == "24/7" else NOT_KNOWN)
            # Longest first: of two symbols that begin alike, the one that is meant.
            names = sorted(map(re.escape, symbols), key=len, reverse=True)
            self._named = re.compile(rf"(?<!\w)(?:{'|'.join(names)})(?!\w)")

    def connected(self, now: float) -> None:
        """There is a connection, and all symbols are subscribed to."""
        with self._lock:
            self._is_connected = True
            self._heard_from = self.complete_until = now
            if self._outage is not None:
                self._journal.close(self._outage, now)
                self._outage = None

    def disconnected(self, now: float, since: float, reason: str) -> None:
        """There is no connection; what was sent after `since` may be lost."""
        with self._lock:
            self._is_connected = False
            for pulse in self._pulses.values():
                if pulse.is_silent:
                    self._end(pulse, since)
            self._begin_outage(min(since, now), "disconnected", reason)

    def took_in_until(self, sent: float, now: float) -> None:
        """All that the feed had sent when it sent something that came now.

        What dies with a connection is younger than the newest trade that came, and than the newest ping that was
        answered, but not than the moment in which those came: a line may be slow.
        """
        # Never ahead of the clock, so that one that was set back does not leave it there.
        self.complete_until = min(max(self.complete_until, sent), now)

    def held_back(self, now: float) -> None:
        """The producer takes in nothing, because Kafka does not: the silence until now is not the feed's."""
        with self._lock:
            self._heard_from = now

    def received(self, symbol: str, now: float) -> None:
        """Trades of a symbol came."""
        with self._lock:
            pulse = self._pulses.get(symbol)
            if pulse is None:
                return
            if pulse.gap is not None:
                self._end(pulse, now)
            period = self._periods[pulse.calendar]
            if period.is_open and now < period.ends and pulse.last >= max(period.begins, self._heard_from):
                pulse.learn(now, period)
            pulse.last = now

    def rejected(self, message: str, now: float) -> None:
        """Finnhub sent an error. One that names no symbol says nothing of any, but for that they are too many."""
        with self._lock:
            symbols = set(self._named.findall(message))
            if not symbols and "too many symbols" in message.lower():
                symbols = set(list(self._pulses)[SYMBOL_LIMIT:])
            for symbol in symbols:
                pulse = self._pulses[symbol]
                if pulse.gap is None:
                    pulse.gap = self._open(symbol, now, "subscription rejected", message)

    def look(self, now: float) -> None:
        """Find the symbols that are silent for too long. To be called about once a second, from one thread."""
        for name, period in list(self._periods.items()):
            if not period.begins <= now < period.ends:
                self._periods[name] = period_at(name, now)
        with self._lock:
            for pulse in self._pulses.values():
                period = self._periods[pulse.calendar]
                if pulse.is_silent and not period.is_open:
                    self._end(pulse, period.begins)
                if pulse.gap is not None or not self._is_connected or not period.is_open:
                    continue
                since = max(pulse.last, self._heard_from, period.begins)
                allowed = pulse.allowed(now, period)
                if pulse.intervals >= INTERVALS_NEEDED and now - since > allowed:
                    pulse.gap = self._open(pulse.symbol, since, "silent", f"{allowed:.0f} s are usual")
                    pulse.is_silent = True

    def stopped(self, now: float) -> None:
        """The producer takes in nothing more: so it is until the next one is connected."""
        with self._lock:
            self._is_connected = False
            for pulse in self._pulses.values():
                if pulse.gap is not None:
                    self._end(pulse, now)
            self._begin_outage(now, "producer down", "it was stopped")

    def _begin_outage(self, started: float, cause: Cause, detail: str) -> None:
        if self._outage is None:
            self._outage = self._open(None, started, cause, detail)

    def _open(self, symbol: str | None, started: float, cause: Cause, detail: str) -> str:
        self.opened += 1
        log.warning("gap: %s, %s: %s", symbol or "every symbol", cause, detail[:MAX_DETAIL])
        return self._journal.open(symbol, started, cause, detail)

    def _end(self, pulse: _Pulse, ended: float) -> None:
        assert pulse.gap is not None
        self._journal.close(pulse.gap, ended)
        pulse.gap, pulse.is_silent = None, False


def journal_path(settings: Settings) -> Path:
    return settings.home / "producer" / "feed_gap.sqlite"


def tell_gaps(settings: Settings, journal: GapJournal) -> None:
    """Bring feed_gap to what the journal knows; where the database is away or lacks the table, a later call does."""
    gaps = journal.untold()
    if not gaps:
        return
    try:
        with psycopg.connect(settings.conninfo("writer")) as connection:
            for gap in gaps:
                connection.execute(load_sql("queries/upsert_feed_gap.sql"), vars(gap))
    except psycopg.Error as error:
        if not journal.is_database_away:
            log.warning("gaps of the feed (%d) are told later: %s", len(gaps), first_line(error))
        journal.is_database_away = True
        return
    journal.is_database_away = False
    for gap in gaps:
        journal.told(gap.id, gap.revision)
