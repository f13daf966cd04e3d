-- Binds: begin, end, symbol (null: all), eligibility.
-- Stops a release: every bar that differs from the one made of its ticks, or lacks its ticks or its bar. Volume and
-- vwap may differ by 1e-9, relative: a floating sum depends on its order. Minutes whose trades not both streams have
-- committed, those whose ticks have been dropped, and the one that `end` lies in are left out.
WITH expected AS MATERIALIZED (
    SELECT *
    FROM bars_from_ticks(
        greatest(%(begin)s, ticks_kept_from()), date_trunc('minute', %(end)s::timestamptz), %(symbol)s, %(eligibility)s
    )
),

stored AS MATERIALIZED (
    SELECT *
    FROM ohlcv_data
    WHERE
        "timestamp" >= greatest(%(begin)s, ticks_kept_from())
        AND "timestamp" < date_trunc('minute', %(end)s::timestamptz)
        AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s)
),

different AS (
    SELECT
        coalesce(expected."timestamp", stored."timestamp") AS "timestamp",
        coalesce(expected.symbol, stored.symbol) AS symbol,
        stored.updated_at,
        stored.open AS stored_open,
        stored.high AS stored_high,
        stored.low AS stored_low,
        stored.close AS stored_close,
        stored.volume AS stored_volume,
        stored.trades AS stored_trades,
        stored.ticks AS stored_ticks,
        stored.vwap AS stored_vwap,
        expected.open AS expected_open,
        expected.high AS expected_high,
        expected.low AS expected_low,
        expected.close AS expected_close,
        expected.volume AS expected_volume,
        expected.trades AS expected_trades,
        expected.ticks AS expected_ticks,
        expected.vwap AS expected_vwap
    FROM expected
    FULL JOIN stored ON expected."timestamp" = stored."timestamp" AND expected.symbol = stored.symbol
    WHERE
        (expected.open, expected.high, expected.low, expected.close, expected.trades, expected.ticks)
        IS DISTINCT FROM (stored.open, stored.high, stored.low, stored.close, stored.trades, stored.ticks)
        OR NOT is_same(expected.volume, stored.volume)
        OR NOT is_same(expected.vwap, stored.vwap)
)

SELECT
    'bars_match_ticks' AS "check",
    different.*
FROM different
WHERE is_settled("timestamp", symbol, updated_at, stored_ticks)
ORDER BY "timestamp", symbol
