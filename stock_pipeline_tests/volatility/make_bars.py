"""Writes bars.csv.gz: a random walk of 2,000 minutes with gaps, flat bars and jumps, for ttr.R and the tests."""

from pathlib import Path

import numpy as np
import pandas as pd

chance = np.random.default_rng(20261124)
count = 2_000
minutes = np.flatnonzero(chance.random(count + 100) > 0.03)[:count]
moves = chance.normal(0, 5e-4, count)
moves[[400, 900, 1700]] += 0.02
close = 60_000 * np.exp(np.cumsum(moves))
opens = np.roll(close, 1) * np.exp(chance.normal(0, 5e-5, count))
opens[0] = 60_000
flat = chance.random(count) < 0.02
close, opens = np.where(flat, np.round(opens, 2), np.round(close, 2)), np.round(opens, 2)
span = np.where(flat, 0, np.abs(chance.normal(0, 2e-4, (2, count))))
bars = pd.DataFrame(
    {
        "minute": minutes,
        "open": opens,
        "high": np.round(np.maximum(opens, close) * (1 + span[0]), 2),
        "low": np.round(np.minimum(opens, close) * (1 - span[1]), 2),
        "close": close,
    }
)
bars.to_csv(Path(__file__).parent / "bars.csv.gz", index=False)
