-- Binds: begin, end, eligibility.
-- Bars against tick_minute, TimescaleDB's own aggregation of their ticks: of minutes in which every trade may set every
-- price, because none has a condition, or BAR_ELIGIBILITY lets all. Volume may differ by 1e-9, relative. Minutes whose
-- trades not both streams have committed, whose ticks have changed since the last refresh of tick_minute, or whose ticks
-- have been dropped, are left out.
WITH expected AS (
    SELECT *
    FROM tick_minute
    WHERE "timestamp" >= greatest(%(begin)s, ticks_kept_from()) AND "timestamp" < %(end)s
),

stored AS (
    SELECT *
    FROM ohlcv_data
    WHERE "timestamp" >= greatest(%(begin)s, ticks_kept_from()) AND "timestamp" < %(end)s
),

different AS MATERIALIZED (
    SELECT
        coalesce(expected."timestamp", stored."timestamp") AS "timestamp",
        coalesce(expected.symbol, stored.symbol) AS symbol,
        stored.updated_at,
        stored.high AS stored_high,
        stored.low AS stored_low,
        stored.volume AS stored_volume,
        stored.trades AS stored_trades,
        stored.ticks AS stored_ticks,
        expected.high AS expected_high,
        expected.low AS expected_low,
        expected.volume AS expected_volume,
        expected.trades AS expected_trades,
        expected.ticks AS expected_ticks
    FROM expected
    FULL JOIN stored ON expected."timestamp" = stored."timestamp" AND expected.symbol = stored.symbol
    WHERE
        (%(eligibility)s = 'all' OR coalesce(expected.with_conditions, 0) = 0)
        AND (
            (expected.high, expected.low, expected.trades, expected.ticks)
            IS DISTINCT FROM (stored.high, stored.low, stored.trades, stored.ticks)
            OR NOT is_same(expected.volume, stored.volume)
        )
)

SELECT
    'bars_match_aggregate' AS "check",
    different.*
FROM different
WHERE
    coalesce(expected_ticks, 0) = (
        SELECT count(*)
        FROM tick_data AS tick
        WHERE
            tick.symbol = different.symbol
            AND tick.event_time >= different."timestamp"
            AND tick.event_time < different."timestamp" + INTERVAL '1 minute'
    )
    AND is_settled("timestamp", symbol, updated_at, stored_ticks)
ORDER BY "timestamp", symbol
