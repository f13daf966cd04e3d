"""Writes variances.csv.gz: realised and bipower variance of the windows of bars.csv.gz, by another hand.

`pip install hffe==0.0.13`, whose stock.py sums squares and products of the returns of a day; a window is such a day.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from hffe.stock import Stock

FOLDER = Path(__file__).parent

bars = pd.read_csv(FOLDER / "bars.csv.gz")
rows = []
for window in (30, 60, 1440):
    for last in range(window - 1, len(bars), 37):
        prices = bars["close"].to_numpy()[last - window + 1 : last + 1]
        returns = Stock.getReturns(prices, window, 1)
        rows.append((window, bars["minute"][last], *Stock.getRV(returns), *Stock.getBV(returns)))
found = pd.DataFrame(rows, columns=["bars", "minute", "realised_variance", "bipower_variance"])
assert np.isfinite(found).all(axis=None)
found.to_csv(FOLDER / "variances.csv.gz", index=False, float_format="%.17g")
