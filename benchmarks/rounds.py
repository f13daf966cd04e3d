"""Rounds of a comparison, and what they come to: the ways, or the points of a curve, take turns in each.

The machine's speed changes within minutes: what is compared is compared within a round.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TypeVar

ROUNDS = 5
"""Those that count; one before them warms up."""

TASKS = ("ticks", "bars")

Group = TypeVar("Group")
Item = TypeVar("Item")


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
            figures = found.setdefault(group, {}).setdefault(name, [])
            if number:
                figures.append(speed)
    return found


def in_turn(items: Iterable[Item], number: int) -> list[Item]:
    """The order of a round: another one begins in each, so that nobody always follows the same."""
    listed = list(items)
    first = number % len(listed)
    return listed[first:] + listed[:first]


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: median(figures) for name, figures in found.items()}


def ratio(figures: Sequence[float], others: Sequence[float]) -> float:
    """How many times as fast, within each round: the median."""
    return median(figure / other for figure, other in zip(figures, others, strict=True))
