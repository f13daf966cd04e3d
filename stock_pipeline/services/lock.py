"""One of each service: an flock that the kernel frees when its holder dies, however it dies."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stock_pipeline.errors import AlreadyRunning


def _try_lock(path: Path) -> int | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def hold(path: Path, patience: float = 2.0) -> Iterator[None]:
    """Hold the lock while the block runs.

    Args:
        patience: seconds to wait for it: `is_held` of another process takes it for an instant.

    Raises:
        AlreadyRunning: another process holds it.
    """
    deadline = time.monotonic() + patience
    while (descriptor := _try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise AlreadyRunning(f"{path.stem} is running already: {path} is locked; `stock-pipeline status` shows it")
        time.sleep(0.05)
    try:
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock."""
    descriptor = _try_lock(path)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False
