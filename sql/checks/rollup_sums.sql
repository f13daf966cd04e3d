-- Identifiers: rollup, source. Binds: rollup, width, begin, end. Bars whose volume, trades or ticks are not the sums of
-- their finer bars, or that are missing or too many. Volume may differ by 1e-9, relative. Bars that a refresh still has to
-- make are left out for 20 minutes: a finer one is not final yet, or has just changed.
WITH expected AS (
    SELECT
        bucket.starts AS "timestamp",
        finer.symbol,
        sum(finer.volume) AS volume,
        sum(finer.trades) AS trades,
        sum(finer.ticks) AS ticks,
        bool_and(finer.is_final) AS is_final
    FROM {source} AS finer
    CROSS JOIN LATERAL bucket(%(width)s, finer.symbol, finer."timestamp") AS bucket
    WHERE
        finer."timestamp" >= %(begin)s
        AND finer."timestamp" < %(end)s
        AND bucket.starts >= %(begin)s
        AND bucket.ends <= least(%(end)s, (SELECT final_until()) - INTERVAL '20 minutes')
    GROUP BY bucket.starts, finer.symbol
),

-- Those that begin where no bucket does are too many.
stored AS (
    SELECT
        made."timestamp",
        made.symbol,
        made.volume,
        made.trades,
        made.ticks
    FROM {rollup} AS made
    LEFT JOIN LATERAL bucket(%(width)s, made.symbol, made."timestamp") AS bucket ON TRUE
    WHERE
        made."timestamp" >= %(begin)s
        AND coalesce(bucket.ends, made."timestamp") <= least(%(end)s, (SELECT final_until()) - INTERVAL '20 minutes')
),

excused AS (
    SELECT "timestamp", symbol FROM expected WHERE NOT is_final
    UNION
    SELECT place."timestamp", stale_bar.symbol
    FROM stale_bar
    LEFT JOIN LATERAL bucket(%(width)s, stale_bar.symbol, stale_bar."timestamp") AS bucket ON TRUE
    CROSS JOIN LATERAL (VALUES (bucket.starts), (stale_bar."timestamp")) AS place ("timestamp")
    WHERE stale_bar.rollup = %(rollup)s AND stale_bar.noted_at > now() - INTERVAL '20 minutes'
)

SELECT
    'sums_are_those_of_finer_bars' AS "check",
    coalesce(expected."timestamp", stored."timestamp") AS "timestamp",
    coalesce(expected.symbol, stored.symbol) AS symbol,
    stored.volume AS stored_volume,
    expected.volume AS expected_volume,
    stored.trades AS stored_trades,
    expected.trades AS expected_trades,
    stored.ticks AS stored_ticks,
    expected.ticks AS expected_ticks
FROM expected
FULL JOIN stored ON expected."timestamp" = stored."timestamp" AND expected.symbol = stored.symbol
WHERE
    (
        (expected.trades, expected.ticks) IS DISTINCT FROM (stored.trades, stored.ticks)
        OR NOT is_same(expected.volume, stored.volume)
    )
    AND NOT EXISTS (
        SELECT FROM excused
        WHERE
            excused."timestamp" = coalesce(expected."timestamp", stored."timestamp")
            AND excused.symbol = coalesce(expected.symbol, stored.symbol)
    )
ORDER BY "timestamp", symbol
