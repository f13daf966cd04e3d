"""The results of `make bench`: as JSON, as Markdown tables and as pictures."""

import json
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import psutil

from benchmarks.growth import LITTLE, TRADES
from benchmarks.latency import HELD
from benchmarks.rounds import TASKS, ratio
from stock_pipeline import PROJECT_ROOT
from stock_pipeline.local.stack import components
from stock_pipeline.settings import Settings

FOLDER = Path(__file__).parent / "results"

PACKAGES = ("pyspark", "numba", "pyarrow", "pgpq", "psycopg", "confluent-kafka", "fastavro", "dagster")


def circumstances(settings: Settings) -> dict[str, Any]:
    """When, of which commit, on what, and with which versions; the embedded stack is up."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(": ")[2] for line in lines if line.startswith("model name")}
    commit = subprocess.check_output(["git", "describe", "--always", "--dirty"], cwd=PROJECT_ROOT, text=True)
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit.strip(),
        "processors": f"{psutil.cpu_count()} x {', '.join(models) or platform.machine()}",
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
            **{part.name: part.version() for part in components(settings)},
        },
    }


def write(results: Mapping[str, Any]) -> None:
    """Write latest.json, latest.md and the pictures."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "latest.json").write_text(json.dumps(results, indent=2) + "\n")
    lines = [
        line
        for name, lines_of in SECTIONS.items()
        if name in results
        for line in (f"{name}: {described(results['run'][name])}", "", *lines_of(results[name]))
    ]
    (FOLDER / "latest.md").write_text("\n".join(lines) + "\n")
    if "catch_up" in results:
        draw_catch_up(results["catch_up"])
    if "growth" in results:
        draw_growth(results["growth"]["catch_up"])


def described(run: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    size = "quick; " if run["quick"] else ""
    return f"{size}{run['date']}, commit {run['commit']}, {run['processors']}, {run['memory_gb']} GB; {versions}"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""


def spread(figures: Sequence[float]) -> str:
    return f"{min(figures):,.0f} to {max(figures):,.0f}"


def catch_up_table(found: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for task in TASKS:
        rounds, wrong = found["rounds"][task], found["wrong"][task]
        for name, speed in found[task].items():
            times = f"{ratio(rounds['ours'], rounds[name]):.2f}"
            rows.append([task, name, f"{speed:,.0f}", spread(rounds[name]), times, wrong.get(name, "")])
    head = ["catch-up", "way", "trades/s, median", "spread", "ours is times as fast, median of rounds", "wrong"]
    yield from table(head, rows)
    yield "Wrong: symbols' ticks, or bars, that differ from what pandas makes of the trades, in all rounds together."
    yield ""


def latency_table(found: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [
            rate.removeprefix("r"),
            way,
            kind,
            *(f"{seconds:.2f}" for seconds in figures[kind].values()),
            f"{figures[{'row': 'stored', 'bar': 'in_bar'}[kind]]:.0%}",
            f"{figures['later']:.2f}" if kind == "row" else "",
        ]
        for rate, ways in found.items()
        for way, figures in {"ours": ways, "usual": ways.get("usual")}.items()
        if figures
        for kind in ("row", "bar")
    ]
    head = ["trades/s", "way", "trade to", "p50, s", "p95", "p99", "there in the end", "last third by first"]
    yield from table(head, rows)
    yield "In the end: 15 s after the last trade that counts, two minutes for the usual way, in a quick run one. A"
    yield "trade that is in no bar by then counts with what it has waited, one that is not stored with those 15 s or"
    yield "minutes. Last third by first: the median in the last third of the time, as a multiple of that in the first."
    yield f"The last rate is the highest here, or the first at which one row of a hundred takes more than {HELD:.0f} s."
    yield ""
    rates = [f"{rate.removeprefix('r')} trades/s" for rate in found]
    used = pd.DataFrame([ways["processor"] for ways in found.values()], rates).T
    used.loc["all"] = used.sum()
    beside = pd.DataFrame([ways["beside"] for ways in found.values()], rates).T.rename("beside: {}".format)
    batches = pd.DataFrame([ways["batch_seconds"] for ways in found.values()], rates).T
    for title, figures, form in (
        ("ours, of one processor", pd.concat([used, beside]), ".1%"),
        ("a batch's mean duration, s", batches, ".2f"),
    ):
        rows = [[part, *(format(value, form) for value in row)] for part, *row in figures.itertuples()]
        yield from table([title, *rates], rows)


def growth_table(found: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for name, curve in found["catch_up"].items():
        first = next(iter(curve.values()))
        for value, speeds in curve.items():
            for task in TASKS:
                rounds, used = speeds["rounds"][task], speeds["microseconds"][task]
                times = f"{ratio(rounds, first['rounds'][task]):.2f}"
                taken = [f"{used[part]:.1f}" for part in ("stream", "timescaledb")]
                rows.append([name, f"{int(value):,}", task, f"{speeds[task]:,.0f}", spread(rounds), times, *taken])
    head = ["catch-up by", "", "", "trades/s, median", "spread", "times the first, median of rounds"]
    yield from table([*head, "µs of a processor for a trade: stream", "TimescaleDB"], rows)
    yield f"Each catch-up is of {TRADES:,} trades into empty tables, but of {LITTLE:,} over what is stored, all of it"
    yield "in one chunk, to which the rounds add theirs."
    yield ""
    queries = found["queries"]
    sizes = list(queries)
    rows = [[query, *(f"{queries[size][query]['ms']:.1f}" for size in sizes)] for query in queries[sizes[0]]]
    yield from table(["queries of a panel, ms", *(f"{int(size):,} ticks" for size in sizes)], rows)


def producer_table(found: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [size, f"{found[size]:,.0f}", spread(figures), f"{found['microseconds'][size]:.1f}"]
        for size, figures in found["rounds"].items()
    ]
    yield from table(["trades in a frame", "trades/s, median", "spread", "µs of a processor for a trade"], rows)


def footprint_table(found: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [load, part, f"{figures['MB']:,.0f}", f"{figures['most']:,.0f}", f"{figures['processor']:.0%}"]
        for load, parts in found.items()
        for part, figures in parts.items()
    ]
    yield from table(["trades/s", "part", "MB, mean", "most", "of one processor"], rows)


SECTIONS = {
    "catch_up": catch_up_table,
    "latency": latency_table,
    "growth": growth_table,
    "producer": producer_table,
    "footprint": footprint_table,
}


def limits(rounds: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most of each."""
    figures = np.array(rounds)
    return figures.min(axis=1), figures.max(axis=1)


def draw_catch_up(found: Mapping[str, Any]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.5), layout="constrained")
    for axis, task in zip(axes, TASKS, strict=True):
        names, speeds = list(found[task]), np.array(list(found[task].values()))
        least, most = limits([found["rounds"][task][name] for name in names])
        axis.barh(
            names,
            speeds,
            xerr=(speeds - least, most - speeds),
            color=["C0" if name == "ours" else "C7" for name in names],
        )
        axis.invert_yaxis()
        axis.set(title=f"Catch-up of {task}", xlabel="trades per second")
    figure.savefig(FOLDER / "catch_up.png", dpi=120)
    plt.close(figure)


def draw_growth(found: Mapping[str, Any]) -> None:
    figure, axes = plt.subplots(1, len(found), figsize=(4 * len(found), 3.5), layout="constrained", squeeze=False)
    for axis, (name, curve) in zip(axes[0], found.items(), strict=True):
        values = [int(value) for value in curve]
        for task in TASKS:
            speeds = np.array([point[task] for point in curve.values()])
            least, most = limits([point["rounds"][task] for point in curve.values()])
            axis.errorbar(values, speeds, (speeds - least, most - speeds), fmt="o-", capsize=3, label=task)
        axis.set(title=f"Catch-up by {name}", xscale="log", ylim=(0, None), ylabel="trades per second")
        axis.set_xticks(values, [f"{value:,}" for value in values])
        axis.minorticks_off()
        axis.legend()
    figure.savefig(FOLDER / "growth.png", dpi=120)
    plt.close(figure)
