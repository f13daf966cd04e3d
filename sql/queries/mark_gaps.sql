-- How many seconds of each bar's minute the feed was away: the union of all gaps that concern its symbol.
WITH candidate AS (
    -- Bars of gaps that are new or have changed,
    SELECT
        bar."timestamp",
        bar.symbol
    FROM feed_gap AS gap
    INNER JOIN ohlcv_data AS bar
        ON
            bar."timestamp" > gap.started - INTERVAL '1 minute'
            AND bar."timestamp" < coalesce(gap.ended, now())
            AND (gap.symbol IS NULL OR gap.symbol = bar.symbol)
    WHERE NOT gap.is_marked
    UNION
    -- and bars that are newer than their gaps were marked.
    SELECT
        bar."timestamp",
        bar.symbol
    FROM ohlcv_data AS bar
    WHERE
        NOT bar.is_final
        AND (
            bar.gap_seconds > 0
            OR EXISTS (
                SELECT FROM feed_gap AS gap
                WHERE
                    gap.started < bar."timestamp" + INTERVAL '1 minute'
                    AND coalesce(gap.ended, now()) > bar."timestamp"
                    AND (gap.symbol IS NULL OR gap.symbol = bar.symbol)
            )
        )
),

away AS (
    SELECT
        "timestamp",
        symbol,
        seconds_away(symbol, "timestamp", "timestamp" + INTERVAL '1 minute') AS seconds
    FROM candidate
),

marked AS (
    UPDATE feed_gap SET is_marked = TRUE
    WHERE NOT is_marked AND ended IS NOT NULL
)

UPDATE ohlcv_data AS bar SET gap_seconds = away.seconds
FROM away
WHERE bar."timestamp" = away."timestamp" AND bar.symbol = away.symbol AND bar.gap_seconds <> away.seconds
