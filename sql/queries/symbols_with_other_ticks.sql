-- Binds: first, last. Symbols whose bar of a minute from the first to the last is made of another number of ticks than
-- there are, or is missing. Both hold trades of the same log, each once: where the numbers are equal, so are the trades.
SELECT
    tick.minute,
    tick.symbol
FROM (
    SELECT
        time_bucket('1 minute', event_time) AS minute,
        symbol,
        count(*) AS ticks
    FROM tick_data
    WHERE
        event_time >= %(first)s::timestamptz
        AND event_time < %(last)s::timestamptz + INTERVAL '1 minute'
    GROUP BY 1, 2
) AS tick
LEFT JOIN ohlcv_data AS bar ON tick.minute = bar."timestamp" AND tick.symbol = bar.symbol
WHERE bar.ticks IS DISTINCT FROM tick.ticks
ORDER BY tick.minute, tick.symbol
