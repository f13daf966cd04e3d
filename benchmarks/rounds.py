"""What the rounds of a comparison come to: the ways, or the points of a curve, take turns in each."""

from collections.abc import Mapping, Sequence
from statistics import median

ROUNDS = 5
"""Those that count; one before them warms up."""

TASKS = ("ticks", "bars")


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: median(figures) for name, figures in found.items()}


def spreads(found: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """The least and the most."""
    return {name: (min(figures), max(figures)) for name, figures in found.items()}
