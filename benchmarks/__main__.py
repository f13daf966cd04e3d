"""What `make bench` runs: all comparisons, one after the other, each over a stack of its own.

    .venv/bin/python -m benchmarks [--quick] [part ...]

The results of parts that are left out stay as they were.
"""

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from benchmarks import catch_up, footprint, growth, latency, producer, report
from benchmarks.rounds import ROUNDS, collect, in_turn, medians
from benchmarks.stack import own_stack
from stock_pipeline.local.component import free_port
from stock_pipeline.settings import load_settings

QUICK_ROUNDS = 2

RATES = (100, 1_000, 5_000)

MORE = (10_000, 20_000, 40_000, 60_000, 80_000)
"""Trades a second at which two cores end; ours alone, for a shorter time, up to the first that is not held."""

FINNHUB_RATE = 57
"""Trades a second that a free token of Finnhub delivers."""


def measure_catch_up(quick: bool) -> dict[str, Any]:
    with own_stack() as stack:
        trades, rounds = (500_000, QUICK_ROUNDS) if quick else (2_000_000, ROUNDS)
        found, wrong = catch_up.compare(load_settings(), stack.home.parent, trades, rounds)
    return {**{task: medians(ways) for task, ways in found.items()}, "rounds": found, "wrong": wrong}


def measure_latency(quick: bool) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for way in ("ours", "usual"):
        with own_stack() as stack:
            settings, port = load_settings(), free_port()
            with latency.pipeline(stack, settings, way, port) as running:
                for rate in (1_000,) if quick else (*RATES, *(MORE if way == "ours" else ())):
                    warm_up, seconds = (30, 15) if quick else (60, 30 if rate in MORE else 60)
                    settle = 15 if way == "ours" else 60 if quick else 120
                    feed = latency.Feed(port, rate, warm_up, seconds, settle)
                    figures = latency.measure(running, settings, way, feed)
                    print(f"{rate} trades/s, {way}: {figures}", flush=True)
                    found.setdefault(f"r{rate}", {}).update(figures if way == "ours" else {way: figures})
                    if rate >= max(RATES) and figures["row"]["p99"] > latency.HELD:
                        break
    return found


def measure_growth(_quick: bool) -> dict[str, Any]:
    with own_stack() as stack:
        settings, folder = load_settings(), stack.home.parent
        found = {"symbols": growth.by_symbols(settings, folder), "partitions": growth.by_partitions(settings, folder)}
        queries, found["stored"] = growth.by_stored(settings, folder)
    return {"catch_up": found, "queries": queries}


def measure_producer(_quick: bool) -> dict[str, Any]:
    used: dict[str, list[float]] = {}
    with own_stack() as stack:

        def one_round(number: int) -> Iterator[tuple[str, str, float]]:
            for size in in_turn(producer.TRADES, number):
                speed, microseconds = producer.measure(stack, size, f"producer-{size}-{number}")
                if number:
                    used.setdefault(str(size), []).append(microseconds)
                yield "trades in a frame", str(size), speed

        [found] = collect(one_round).values()
    return {**medians(found), "rounds": found, "microseconds": medians(used)}


def measure_footprint(_quick: bool) -> dict[str, Any]:
    found = {}
    for rate in (0, FINNHUB_RATE):
        with own_stack() as stack:
            frame = footprint.measure(stack, rate)
            print(f"{rate} trades/s", frame.round(2).to_string(), sep="\n", flush=True)
            found[str(rate)] = frame.T.to_dict()
    return found


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "catch_up": measure_catch_up,
    "latency": measure_latency,
    "growth": measure_growth,
    "producer": measure_producer,
    "footprint": measure_footprint,
}

QUICK = ("catch_up", "latency")


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"{', '.join(PARTS)}; all where none is named")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="catch-up and latency at a quarter of the size")] = False,
) -> None:
    if unknown := set(parts or ()) - set(PARTS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are only {', '.join(PARTS)}")
    latest = report.FOLDER / "latest.json"
    results = json.loads(latest.read_text()) if latest.exists() else {"run": {}}
    with own_stack():
        run = report.circumstances(load_settings()) | {"quick": quick}
    for part in parts or (QUICK if quick else PARTS):
        results[part] = PARTS[part](quick)
        results["run"][part] = run
        report.write(results)
    print((report.FOLDER / "latest.md").read_text())


typer.run(main)
