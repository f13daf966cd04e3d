"""The code server of a container, and the services, which start before it and end before the container does.

    python -m stock_pipeline.local.code_server python -m stock_pipeline.local.grpc_server …

Only the first process of a container is told that it ends; the others are killed. Producer and streams, in sessions of
their own, have to be stopped by it. A code server that dies is started again; the services go on meanwhile.
"""

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from stock_pipeline import __version__
from stock_pipeline.logs import configure_logging
from stock_pipeline.services.processes import ProcessRecord
from stock_pipeline.services.service import record_path
from stock_pipeline.services.supervisor import Reviver, start_services, stop_services, terminate
from stock_pipeline.settings import Settings, load_settings

log = logging.getLogger(__name__)

NAME = "code-server"

LOOK = 1.0
"""Seconds between two looks at the code server."""

PAUSE = 5.0
"""Seconds from its death to its next start."""


def run_until_stopped(settings: Settings, command: Sequence[str]) -> None:
    """Start the services and keep the code server running until SIGTERM or SIGINT; then stop all."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    start_services(settings)
    reviver = Reviver(settings)
    while not stop.is_set():
        server = subprocess.Popen(command)
        ProcessRecord.of(NAME, server.pid, __version__).write(record_path(settings, NAME))
        while not stop.wait(LOOK) and server.poll() is None:
            reviver.look()
        if not stop.is_set():
            log.warning("the code server ended with exit code %d and starts again in %.0f s", server.returncode, PAUSE)
            stop.wait(PAUSE)
    log.info("stopping the services")
    stop_services(settings)
    terminate(settings, NAME)
    # Where the daemon lives on, a sensor may have started one meanwhile.
    stop_services(settings)


if __name__ == "__main__":
    configure_logging(load_settings().secrets())
    run_until_stopped(load_settings(), sys.argv[1:])
