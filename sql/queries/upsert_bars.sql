-- Binds: a list for each column of the bars.
-- A bar gives way only to one built from at least as many ticks: a stream that begins again in the middle of
-- a minute cannot put a part over the whole. A bar whose ticks have been dropped stays as it is. In the order of the
-- key, so that two writers cannot deadlock.
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
FROM unnest(
    %(timestamp)s::timestamptz[],
    %(symbol)s::text[],
    %(open)s::double precision[],
    %(high)s::double precision[],
    %(low)s::double precision[],
    %(close)s::double precision[],
    %(volume)s::double precision[],
    %(trades)s::bigint[],
    %(ticks)s::bigint[],
    %(vwap)s::double precision[]
) AS bar ("timestamp", symbol, open, high, low, close, volume, trades, ticks, vwap)
WHERE bar."timestamp" >= ticks_kept_from()
ORDER BY bar."timestamp", bar.symbol
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
WHERE excluded.ticks >= known.ticks
