"""Bars as a candlestick chart, drawn in a process of its own: what draws takes 60 MB, which a run would keep."""

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

PATIENCE = 120.0
"""Seconds that a chart may take."""

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
    """A PNG of 700 by 400 pixels, prices above volumes, oldest bar first; times are UTC.

    Raises:
        subprocess.SubprocessError: it could not be drawn.
    """
    rows = json.dumps([candle._asdict() for candle in candles], default=str)
    command = [sys.executable, "-m", "stock_pipeline.bars.chart", title]
    return subprocess.run(command, input=rows.encode(), stdout=subprocess.PIPE, check=True, timeout=PATIENCE).stdout


def _draw(title: str, rows: Sequence[dict[str, Any]]) -> bytes:
    import matplotlib
    import mplfinance
    import pandas as pd
    from PIL import Image

    matplotlib.use("agg")
    frame = pd.DataFrame(rows).set_index("timestamp").rename(columns=str.capitalize)
    frame.index = pd.to_datetime(frame.index, utc=True, format="ISO8601")
    style = mplfinance.make_mpf_style(
        base_mpf_style="yahoo",
        facecolor="white",
        rc={"font.size": 8, "axes.titleweight": "bold", "axes.labelweight": "bold"},
    )
    picture = io.BytesIO()
    mplfinance.plot(
        frame,
        type="candle",
        volume=True,
        style=style,
        axtitle=title,
        figsize=(7, 4),
        datetime_format="%m-%d %H:%M",
        xrotation=30,
        savefig={"fname": picture, "dpi": 100, "format": "png", "bbox_inches": "tight"},
    )
    small = io.BytesIO()
    Image.open(picture).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    return small.getvalue()


if __name__ == "__main__":
    sys.stdout.buffer.write(_draw(sys.argv[1], json.load(sys.stdin)))
