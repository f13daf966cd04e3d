"""Waiting for a server that is away: one line a try, with back-off, for as long as it takes."""

import logging
import threading
from collections.abc import Callable

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    stop_any,
    stop_never,
    stop_when_event_set,
    wait_exponential_jitter,
)
from tenacity.nap import sleep, sleep_using_event

from stock_pipeline.errors import first_line

log = logging.getLogger(__name__)


def until_back(
    server: str,
    is_away: Callable[[BaseException], bool],
    patience: float | None,
    stop: threading.Event | None = None,
) -> Retrying:
    """Retries what meets a server that cannot be reached, and says so.

    Args:
        server: its name, address and setting, for the log.
        is_away: whether an error says that the server is away, rather than that it refuses.
        patience: seconds after which the error is raised; None: never.
        stop: gives up with the error when it is set.
    """

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        problem = first_line(error) if error else ""
        pause = state.next_action.sleep if state.next_action else 0
        log.warning("%s cannot be reached, next try in %.1f s: %s", server, pause, problem)

    patient = stop_never if patience is None else stop_after_delay(patience)
    return Retrying(
        retry=retry_if_exception(is_away),
        wait=wait_exponential_jitter(initial=0.5, max=5, jitter=0.5),
        sleep=sleep_using_event(stop) if stop is not None else sleep,
        stop=stop_any(patient, stop_when_event_set(stop)) if stop is not None else patient,
        before_sleep=say,
        reraise=True,
    )
