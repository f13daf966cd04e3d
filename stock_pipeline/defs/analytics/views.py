"""The views over the bars of one minute: volatility and vwap bands."""

from dagster import AssetsDefinition

from stock_pipeline.defs.applied_sql import applied_sql
from stock_pipeline.defs.tables import Lineage

FORMULAS = """
*N* is the symbol's number of bars in a year of trading (`instrument.periods_per_year`), *n* the number of bars in the
window, O, H, L, C are logarithms of prices, C' the close before, r = C − C'. Annualised standard deviations, with the
conventions of R's `TTR::volatility`:

| column | formula | source |
|---|---|---|
| close_to_close | √(N·var(r)), of the n − 1 returns inside the window | |
| parkinson | √(N/(4n·ln 2)·Σ(H − L)²) | Parkinson, *J. Business* 53 (1980) 61 |
| garman_klass | √(N/n·Σ(½(H − L)² − (2 ln 2 − 1)(C − O)²)) | Garman and Klass, *J. Business* 53 (1980) 67 |
| rogers_satchell | √(N/n·Σ((H − C)(H − O) + (L − C)(L − O))) | Rogers and Satchell, *Ann. Appl. Probab.* 1 (1991) 504 |
| yang_zhang | √(N·var(O − C') + k·N·var(C − O) + (1 − k)·rogers_satchell²), \
k = 0.34/(1.34 + (n + 1)/(n − 1)) | Yang and Zhang, *J. Business* 73 (2000) 477 |
| realised | √(N/(n − 1)·Σr²) | Barndorff-Nielsen and Shephard, *J. Financial Econometrics* 2 (2004) 1 |
| bipower | √(N/(n − 2)·π/2·Σ\\|rᵢ\\|\\|rᵢ₋₁\\|) | the same |
| jump_share | max(0, 1 − bipower²/realised²) | the same |
| atr | mean of the n − 1 true ranges inside the window | Wilder, *New Concepts in Technical Trading Systems* (1978) |

Null until the window is full, the first window of yang_zhang needing one bar more; null too while the window holds an
impossible bar.
"""


def _bars(*columns: str) -> list[tuple[str, str]]:
    return [("ohlcv_data", column) for column in columns]


YEAR = [("instrument", "periods_per_year")]

VOLATILITY_LINEAGE: Lineage = {
    "timestamp": _bars("timestamp"),
    "symbol": _bars("symbol"),
    "from_timestamp": _bars("timestamp"),
    **{column: [*_bars("close"), *YEAR] for column in ("close_to_close", "realised", "bipower")},
    "jump_share": _bars("close"),
    "parkinson": [*_bars("high", "low"), *YEAR],
    **{
        column: [*_bars("open", "high", "low", "close"), *YEAR]
        for column in ("garman_klass", "rogers_satchell", "yang_zhang")
    },
    "atr": _bars("high", "low", "close"),
}

BANDS = ("vwap", "deviation", "lower_2", "lower_1", "upper_1", "upper_2")


def volatility_view(bars: int, file: str) -> AssetsDefinition:
    """The asset of the view over windows of so many bars."""
    name = f"volatility_{bars}"
    return applied_sql(
        name,
        ["views/100_volatility.sql", file],
        group="analytics",
        kinds={"postgres", "view"},
        deps=["ohlcv_data", "instrument"],
        description=(
            f"Volatility over the last {bars} bars of one minute, across sessions. Grain: a bar. Key: (timestamp, "
            f"symbol). Always as fresh as ohlcv_data. For a range of time call `volatility(symbol, from, to, {bars})`: "
            f"a condition on the time does not reach through the view.\n{FORMULAS}"
        ),
        lineage=VOLATILITY_LINEAGE,
    )


volatility_30 = volatility_view(30, "views/110_volatility_30.sql")
volatility_60 = volatility_view(60, "views/120_volatility_60.sql")
volatility_1440 = volatility_view(1440, "views/130_volatility_1440.sql")

volatility_1m = applied_sql(
    "volatility_1m",
    ["views/140_volatility_1m.sql"],
    group="analytics",
    kinds={"postgres", "view"},
    deps=["ohlcv_data"],
    description=(
        "Range of the prices within each minute: highest minus lowest, in the quote currency. Grain: a bar. Key: "
        "(timestamp, symbol). Always as fresh as ohlcv_data."
    ),
    lineage={"timestamp": _bars("timestamp"), "symbol": _bars("symbol"), "range": _bars("high", "low")},
)

vwap_bands = applied_sql(
    "vwap_bands",
    ["views/150_vwap_bands.sql"],
    group="analytics",
    kinds={"postgres", "view"},
    deps=["ohlcv_data", "market_session", "instrument"],
    description=(
        "The volume-weighted average price since the day began, with bands of one and two volume-weighted standard "
        "deviations of the minutes' vwap around it: √(Σv(p − vwap)²/Σv). A day is as in ohlcv_1d. Grain: a bar of a "
        "day that has had volume. Key: (timestamp, symbol). Always as fresh as ohlcv_data. For a range of time call "
        "`vwap_bands(symbol, from, to)`."
    ),
    lineage={
        "timestamp": _bars("timestamp"),
        "symbol": _bars("symbol"),
        "from_timestamp": [*_bars("timestamp"), ("market_session", "opens")],
        **{column: _bars("vwap", "volume") for column in BANDS},
    },
)
