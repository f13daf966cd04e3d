-- Bind: minute. Symbols whose bar of the minute is made of another number of ticks than there are, or is missing. Both hold
-- trades of the same log, each once: where the numbers are equal, so are the trades.
SELECT tick.symbol
FROM (
    SELECT
        symbol,
        count(*) AS ticks
    FROM tick_data
    WHERE event_time >= %(minute)s::timestamptz AND event_time < %(minute)s::timestamptz + INTERVAL '1 minute'
    GROUP BY symbol
) AS tick
LEFT JOIN ohlcv_data AS bar ON bar."timestamp" = %(minute)s AND tick.symbol = bar.symbol
WHERE bar.ticks IS DISTINCT FROM tick.ticks
ORDER BY tick.symbol
