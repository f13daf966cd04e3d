"""What the fault test does to the pipeline. A fault is a function that makes it, and returns when it is over."""

import random
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import psutil

from stock_pipeline_tests.faults.clock import Clock
from stock_pipeline_tests.faults.disk import Disk
from stock_pipeline_tests.faults.market import Exchange
from stock_pipeline_tests.faults.pipeline import SERVICES, STREAMS, Pipeline
from stock_pipeline_tests.stack.test_run import holders

FROZEN = 90.0
"""Seconds of a SIGSTOP."""

AWAY = 300.0
"""Seconds for which database or broker are away at a time."""

FEED_FAULT = 20.0
"""Seconds of a fault of the feed, of a clock that was stepped, of a full disk."""

SLOW_LINE = 10_000
"""Bytes a second of a slow line: about a tenth of what the market sends at 1,000 trades a second."""

HALF_OPEN = 45.0
"""Seconds of a connection that is dead without saying so: longer than the producer needs to notice."""

DAGSTER = ("daemon", "webserver", "code-server")
PARTS = (*SERVICES, "kafka", "timescaledb", *DAGSTER)

Find = Callable[[random.Random], list[psutil.Process]]
"""Gives a process and all that it started."""


def processes_by_part(pipeline: Pipeline) -> dict[str, list[psutil.Process]]:
    """The processes of each part, and of `run` itself; each process once."""
    seen: set[int] = set()
    found = {}
    for part in (*PARTS, "run"):
        found[part] = [process for process in pipeline.family(part) if process.pid not in seen]
        seen |= {process.pid for process in found[part]}
    return found


@dataclass(frozen=True)
class Fault:
    """
    Attributes:
        seconds: how long it lasts.
        most: how often it may come in a run.
        group: `most` counts all faults of it.
    """

    name: str
    make: Callable[[random.Random], None]
    seconds: float = 0.0
    most: int = 1_000
    group: str = ""


def all_faults(pipeline: Pipeline, exchange: Exchange, disk: Disk, clock: Clock) -> Sequence[Fault]:
    line = exchange.line
    families: dict[str, Find] = {part: partial(_family, pipeline, part) for part in PARTS}
    if pipeline.executors():
        families["an executor"] = partial(_executor, pipeline)
    faults = [Fault(f"kill {name}", partial(_kill, find)) for name, find in families.items()]
    faults += [
        Fault("kill a PostgreSQL backend", partial(_kill_below, pipeline, ("timescaledb",), "postgres")),
        Fault("kill a stream's JVM", partial(_kill_below, pipeline, STREAMS, "java")),
        Fault("kill a stream's Python worker", partial(_kill_below, pipeline, STREAMS, "python")),
        Fault("kill a Dagster run", partial(_kill_run, pipeline)),
    ]
    faults += [Fault(f"freeze {name}", partial(_freeze, find), FROZEN, 10, "freeze") for name, find in families.items()]
    faults += [Fault(f"{part} away", partial(_keep_away, pipeline, part), AWAY, 1) for part in ("timescaledb", "kafka")]
    faults += [
        Fault(f"HTTP {status.value}", partial(_refuse, exchange, status), FEED_FAULT)
        for status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
    ]
    faults += [
        Fault("connection closed", lambda _: exchange.do(line.cut)),
        Fault("half-open connection", partial(_half_open, exchange), HALF_OPEN),
        Fault("garbage frames", lambda _: exchange.do(exchange.market.garble)),
        Fault("garbage bytes", lambda _: exchange.do(line.garble)),
        Fault("slow line", partial(_slow, exchange), FEED_FAULT),
        Fault("clock stepped", partial(_step_clock, clock), FEED_FAULT),
    ]
    if disk.is_there:
        faults.append(Fault("disk of the checkpoints full", partial(_fill, disk), FEED_FAULT))
    return faults


def _family(pipeline: Pipeline, part: str, _chance: random.Random) -> list[psutil.Process]:
    return pipeline.family(part)


def _executor(pipeline: Pipeline, chance: random.Random) -> list[psutil.Process]:
    executor = chance.choice(pipeline.executors())
    return [executor, *executor.children(recursive=True)]


def _kill(find: Find, chance: random.Random) -> None:
    find(chance)[0].kill()


def _kill_below(pipeline: Pipeline, parts: Sequence[str], program: str, chance: random.Random) -> None:
    family = pipeline.family(chance.choice(parts))[1:]
    chosen = [process for process in family if process.name().startswith(program)]
    if chosen:
        chance.choice(chosen).kill()


def _kill_run(pipeline: Pipeline, chance: random.Random) -> None:
    name = chance.choice(SERVICES)
    for process in holders(pipeline.stack.home / "run" / f"{name}-supervisor.lock"):
        process.kill()


def _freeze(find: Find, chance: random.Random) -> None:
    family = find(chance)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    deadline = time.monotonic() + FROZEN
    while time.monotonic() < deadline and family[0].is_running():
        time.sleep(0.5)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def _keep_away(pipeline: Pipeline, part: str, _chance: random.Random) -> None:
    """Kill it, and take its port, so that nobody can start it."""
    record = pipeline.record(part)
    family = pipeline.family(part)
    host, _, port = record["address"].rpartition(":")
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deadline = time.monotonic() + 5
        while True:
            try:
                taken.bind((socket.gethostbyname(host), int(port)))
                break
            except OSError:
                assert time.monotonic() < deadline, f"port {port} of {part} cannot be taken"
                time.sleep(0.01)
        time.sleep(AWAY)


def _refuse(exchange: Exchange, status: HTTPStatus, _chance: random.Random) -> None:
    exchange.line.refuse = status
    exchange.do(exchange.line.cut)
    time.sleep(FEED_FAULT)
    exchange.line.refuse = None


def _half_open(exchange: Exchange, _chance: random.Random) -> None:
    exchange.do(exchange.line.freeze)
    time.sleep(HALF_OPEN)
    exchange.do(exchange.line.thaw)


def _slow(exchange: Exchange, _chance: random.Random) -> None:
    exchange.line.bytes_per_second = SLOW_LINE
    time.sleep(FEED_FAULT)
    exchange.line.bytes_per_second = None


def _step_clock(clock: Clock, _chance: random.Random) -> None:
    clock.step(3600)
    time.sleep(FEED_FAULT)
    clock.step(0)


def _fill(disk: Disk, _chance: random.Random) -> None:
    disk.fill()
    time.sleep(FEED_FAULT)
    disk.free()
