-- Binds: end. Symbols that trade and whose newest bar is more than three minutes older than their newest tick.
SELECT
    'bars_are_fresh' AS "check",
    i.symbol,
    newest.event_time AS newest_tick,
    bar."timestamp" AS newest_bar
FROM instrument AS i
CROSS JOIN LATERAL (
    SELECT max(tick.event_time) AS event_time
    FROM tick_data AS tick
    WHERE tick.symbol = i.symbol AND tick.event_time >= %(end)s - INTERVAL '1 hour'
) AS newest
LEFT JOIN LATERAL (
    SELECT max(b."timestamp") AS "timestamp"
    FROM ohlcv_data AS b
    WHERE b.symbol = i.symbol AND b."timestamp" >= %(end)s - INTERVAL '2 hours'
) AS bar ON TRUE
WHERE
    newest.event_time IS NOT NULL
    AND coalesce(bar."timestamp" < newest.event_time - INTERVAL '4 minutes', TRUE)
