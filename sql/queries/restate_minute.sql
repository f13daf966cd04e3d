-- Binds: minute, symbol, eligibility, always. Writes the bar of the minute where it differs from its ticks: always, or
-- only if it is then built from at least as many.
INSERT INTO ohlcv_data AS known (
    "timestamp", symbol, open, high, low, close, volume, trades, ticks, vwap
)
SELECT
    bar."timestamp",
    bar.symbol,
    bar.open,
    bar.high,
    bar.low,
    bar.close,
    bar.volume,
    bar.trades,
    bar.ticks,
    bar.vwap
FROM bars_from_ticks(
    %(minute)s::timestamptz, %(minute)s::timestamptz + INTERVAL '1 minute', %(symbol)s, %(eligibility)s
) AS bar
WHERE bar."timestamp" >= ticks_kept_from()
ON CONFLICT ("timestamp", symbol) DO UPDATE SET
    open = excluded.open,
    high = excluded.high,
    low = excluded.low,
    close = excluded.close,
    volume = excluded.volume,
    trades = excluded.trades,
    ticks = excluded.ticks,
    vwap = excluded.vwap,
    updated_at = now()
WHERE
    (%(always)s OR excluded.ticks >= known.ticks)
    AND NOT (
        (known.open, known.high, known.low, known.close, known.trades, known.ticks)
        = (excluded.open, excluded.high, excluded.low, excluded.close, excluded.trades, excluded.ticks)
        AND is_same(known.volume, excluded.volume)
        AND is_same(known.vwap, excluded.vwap)
    )
