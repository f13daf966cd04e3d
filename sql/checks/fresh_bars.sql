-- Binds: end, eligibility. Symbols that trade and whose newest bar is more than three minutes older than their newest tick
-- that may set a price.
SELECT
    'bars_are_fresh' AS "check",
    i.symbol,
    newest.event_time AS newest_tick,
    bar."timestamp" AS newest_bar
FROM instrument AS i
CROSS JOIN LATERAL (
    SELECT tick.event_time
    FROM tick_data AS tick
    WHERE
        tick.symbol = i.symbol
        AND tick.event_time >= %(end)s - INTERVAL '1 hour'
        AND tick.event_time < %(end)s
        AND (
            SELECT r.updates_last
            FROM trade_rights(
                tick.conditions, in_regular_session(tick.symbol, tick.event_time), %(eligibility)s
            ) AS r
        )
    ORDER BY tick.event_time DESC
    LIMIT 1
) AS newest
LEFT JOIN LATERAL (
    SELECT max(b."timestamp") AS "timestamp"
    FROM ohlcv_data AS b
    WHERE b.symbol = i.symbol AND b."timestamp" >= %(end)s - INTERVAL '2 hours'
) AS bar ON TRUE
WHERE coalesce(bar."timestamp" < newest.event_time - INTERVAL '4 minutes', TRUE)
