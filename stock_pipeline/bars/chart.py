"""Bars as a candlestick chart."""

import io
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import matplotlib
import mplfinance
import pandas as pd
from PIL import Image

STYLE = mplfinance.make_mpf_style(
    base_mpf_style="yahoo",
    facecolor="white",
    rc={"font.size": 8, "axes.titleweight": "bold", "axes.labelweight": "bold"},
)

COLOURS = 32
"""Enough for a chart, and a quarter of the bytes."""


class Candle(NamedTuple):
    timestamp: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float


def candlesticks(title: str, candles: Sequence[Candle]) -> bytes:
    """A PNG of 700 by 400 pixels, prices above volumes, oldest bar first; times are UTC."""
    matplotlib.use("agg")
    frame = pd.DataFrame(candles).set_index("timestamp").rename(columns=str.capitalize)
    frame.index = pd.to_datetime(frame.index, utc=True)
    picture = io.BytesIO()
    mplfinance.plot(
        frame,
        type="candle",
        volume=True,
        style=STYLE,
        axtitle=title,
        figsize=(7, 4),
        datetime_format="%m-%d %H:%M",
        xrotation=30,
        savefig={"fname": picture, "dpi": 100, "format": "png", "bbox_inches": "tight"},
    )
    small = io.BytesIO()
    Image.open(picture).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    return small.getvalue()
