"""What the rounds of a comparison come to: the ways, or the points of a curve, take turns in each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TypeVar

ROUNDS = 5
"""Those that count; one before them warms up."""

TASKS = ("ticks", "bars")

Group = TypeVar("Group")


def collect(
    one_round: Callable[[int], Iterable[tuple[Group, str, float]]], rounds: int = ROUNDS
) -> dict[Group, dict[str, list[float]]]:
    """Trades a second by group and name, a figure for each round after the first.

    Args:
        one_round: takes its number; gives group, name and trades a second.
    """
    found: dict[Group, dict[str, list[float]]] = {}
    for number in range(rounds + 1):
        for group, name, speed in one_round(number):
            print(f"round {number}, {group}, {name}: {speed:,.0f} trades/s", flush=True)
            if number:
                found.setdefault(group, {}).setdefault(name, []).append(speed)
    return found


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: median(figures) for name, figures in found.items()}


def spreads(found: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """The least and the most."""
    return {name: (min(figures), max(figures)) for name, figures in found.items()}
