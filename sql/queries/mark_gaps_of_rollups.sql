-- Lets the next refresh make those final rollups anew that lie in a gap which is new or has changed: also where none of
-- their finer bars does, since most minutes of an outage have no bar. Before mark_gaps.sql, which marks the gaps.
INSERT INTO stale_bar (rollup, "timestamp", symbol)
SELECT DISTINCT
    made.rollup,
    made."timestamp",
    made.symbol
FROM (
    SELECT 'ohlcv_5m' AS rollup, INTERVAL '5 minutes' AS width, "timestamp", symbol, is_final, gap_seconds FROM ohlcv_5m
    UNION ALL
    SELECT 'ohlcv_15m', INTERVAL '15 minutes', "timestamp", symbol, is_final, gap_seconds FROM ohlcv_15m
    UNION ALL
    SELECT 'ohlcv_1h', INTERVAL '1 hour', "timestamp", symbol, is_final, gap_seconds FROM ohlcv_1h
    UNION ALL
    SELECT 'ohlcv_1d', INTERVAL '1 day', "timestamp", symbol, is_final, gap_seconds FROM ohlcv_1d
) AS made
INNER JOIN feed_gap AS gap
    ON
        made."timestamp" > gap.started - made.width
        AND made."timestamp" < coalesce(gap.ended, now())
        AND (gap.symbol IS NULL OR gap.symbol = made.symbol)
CROSS JOIN LATERAL bucket(made.width, made.symbol, made."timestamp") AS bucket
WHERE
    NOT gap.is_marked
    AND made.is_final
    AND made.gap_seconds <> seconds_away(made.symbol, bucket.starts, bucket.ends)
