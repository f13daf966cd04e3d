"""Logging: one line an event, on standard error, secrets masked."""

import logging
import sys
from collections.abc import Iterable


class MaskSecrets(logging.Formatter):
    """Replaces secrets wherever they stand: in messages, arguments and tracebacks of other libraries, too."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = [secret for secret in secrets if len(secret) >= 4]

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line


def configure_logging(secrets: Iterable[str]) -> None:
    """Send this process's log to standard error, from level INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(MaskSecrets(secrets))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("py4j", "websockets"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # What it reports as an error, our own client reports with the reason and what happens next.
    logging.getLogger("websocket").setLevel(logging.CRITICAL)
