"""SQLite files of the producer: what is written there survives the end of the process, however it comes."""

import sqlite3
from pathlib import Path


def open_durable_file(path: Path, patience: float) -> sqlite3.Connection:
    """A connection for any thread, which commits each statement by itself.

    Args:
        patience: seconds to wait for another connection that has locked the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, patience, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    # In WAL mode this is safe from the end of the process; the feed does not wait for the disk.
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection
