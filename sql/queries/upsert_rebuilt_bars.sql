-- Binds: began. Writes the bars that differ, but for those that the stream wrote meanwhile.
INSERT INTO ohlcv_data AS known (
    "timestamp", symbol, open, high, low, close, volume, trades, ticks, vwap
)
SELECT DISTINCT ON ("timestamp", symbol) "timestamp", symbol, open, high, low, close, volume, trades, ticks, vwap
FROM rebuild_bar
ORDER BY "timestamp", symbol
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
    known.updated_at < %(began)s
    AND NOT (
        (known.open, known.high, known.low, known.close, known.trades, known.ticks)
        = (excluded.open, excluded.high, excluded.low, excluded.close, excluded.trades, excluded.ticks)
        AND is_same(known.volume, excluded.volume)
        AND is_same(known.vwap, excluded.vwap)
    )
