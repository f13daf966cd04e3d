"""What is on its way to Kafka, in a file: it outlives the producer, however that ends, and a broker that is away."""

import json
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from stock_pipeline.errors import SpoolFull
from stock_pipeline.ingest.durable_file import open_durable_file
from stock_pipeline.services.processes import boot_id
from stock_pipeline.settings import Settings

PATIENCE = 5.0
"""Seconds for the other thread, or another program, that has locked the file."""

NO_HEADERS = "{}"
"""A trade's, which is not worth a call of json."""

LOST_IDS = 1_000_000_000
"""Ids that are left out when the machine was started anew: the records that had them may be in Kafka, and yet be lost
here."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS spool (name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS boot (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    key BLOB,
    value BLOB NOT NULL,
    received_ms INTEGER NOT NULL,
    headers TEXT NOT NULL
);
"""


class Record(NamedTuple):
    """A Kafka record to be.

    Attributes:
        received_ms: when its frame came, UNIX milliseconds; the record's time.
    """

    topic: str
    key: bytes | None
    value: bytes
    received_ms: int
    headers: Mapping[str, str] = {}


class Spool:
    """Records in the order in which they came, each with an id that is never used again.

    One object for each thread. What was appended survives the end of the process; the newest of it may not survive
    that of the machine, after which ids go on far above those that it may have had.

    Args:
        limit_mb: size of the file, beyond which nothing is taken.
    """

    def __init__(self, path: Path, limit_mb: int) -> None:
        self._path = path
        self._limit_mb = limit_mb
        self._file = open_durable_file(path, PATIENCE)
        self._file.executescript(SCHEMA)
        self._file.execute("INSERT INTO spool SELECT ? WHERE NOT EXISTS (SELECT 1 FROM spool)", [uuid.uuid4().hex])
        [self.name] = self._file.execute("SELECT name FROM spool").fetchone()
        """Tells this spool from others that wrote to the same topic."""
        self._leave_lost_ids_out()
        # From here on: a full one is opened, too.
        [page_bytes] = self._file.execute("PRAGMA page_size").fetchone()
        self._file.execute(f"PRAGMA max_page_count = {limit_mb * 1_000_000 // page_bytes}")

    def append(self, records: Sequence[Record]) -> None:
        """Keep records, all or none.

        Raises:
            SpoolFull: the limit or the disk leaves no room.
        """
        rows = [
            (r.topic, r.key, r.value, r.received_ms, json.dumps(r.headers) if r.headers else NO_HEADERS)
            for r in records
        ]
        try:
            with self._transaction():
                self._file.executemany(
                    "INSERT INTO record (topic, key, value, received_ms, headers) VALUES (?, ?, ?, ?, ?)", rows
                )
        except sqlite3.OperationalError as error:
            raise SpoolFull(
                f"{self._path} takes no more: {error}; SPOOL_LIMIT_MB is {self._limit_mb}, or the disk is full"
            ) from error

    def after(self, number: int, most: int) -> list[tuple[int, Record]]:
        """The next records with their ids, in order."""
        rows = self._file.execute(
            "SELECT id, topic, key, value, received_ms, headers FROM record WHERE id > ? ORDER BY id LIMIT ?",
            (number, most),
        )
        return [
            (number, Record(topic, kafka_key, value, received_ms, json.loads(headers) if headers != NO_HEADERS else {}))
            for number, topic, kafka_key, value, received_ms, headers in rows
        ]

    def drop_below(self, number: int) -> None:
        """Forget the records before this id."""
        self._file.execute("DELETE FROM record WHERE id < ?", [number])

    def drop(self, numbers: Iterable[int]) -> None:
        """Forget single records."""
        with self._transaction():
            self._file.executemany("DELETE FROM record WHERE id = ?", [(number,) for number in numbers])

    def topics(self) -> list[str]:
        """Where its records go: not only to the topics of today's settings."""
        return [topic for (topic,) in self._file.execute("SELECT DISTINCT topic FROM record ORDER BY topic")]

    def oldest_ms(self) -> int | None:
        """The earliest receipt of a record that is kept, UNIX milliseconds; None: there is none."""
        [oldest] = self._file.execute("SELECT min(received_ms) FROM record").fetchone()
        return None if oldest is None else int(oldest)

    def __len__(self) -> int:
        """How many records there are at most."""
        [ids] = self._file.execute("SELECT coalesce(max(id) - min(id) + 1, 0) FROM record").fetchone()
        return int(ids) % LOST_IDS

    def close(self) -> None:
        self._file.close()

    def _leave_lost_ids_out(self) -> None:
        """Once after each start of the machine, and so that the next one finds it whatever happens."""
        self._file.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            last = self._file.execute("SELECT id FROM boot").fetchone()
            if last != (boot_id(),):
                begun = self._file.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'record'", [LOST_IDS])
                if not begun.rowcount:
                    # SQLite's own comes with the first record, and can be lost with it.
                    self._file.execute("INSERT INTO sqlite_sequence VALUES ('record', 0)")
                self._file.execute("DELETE FROM boot")
                self._file.execute("INSERT INTO boot VALUES (?)", [boot_id()])
        self._file.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._file.execute("COMMIT")
        except BaseException:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            raise


def spool_path(settings: Settings) -> Path:
    return settings.home / "producer" / "spool.sqlite"
