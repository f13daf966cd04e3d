-- Identifiers: rollup, source. Binds: rollup, width, begin, end. Bars whose volume, trades or ticks are not the sums of
-- their finer bars, or that are missing or too many. Volume may differ by 1e-9, relative. Those that a refresh still has
-- to make are left out: 20 minutes later it has been there.
WITH expected AS (
    SELECT
        bucket.starts AS "timestamp",
        finer.symbol,
        sum(finer.volume) AS volume,
        sum(finer.trades) AS trades,
        sum(finer.ticks) AS ticks
    FROM {source} AS finer
    CROSS JOIN LATERAL bucket(%(width)s, finer.symbol, finer."timestamp") AS bucket
    WHERE
        finer."timestamp" >= %(begin)s
        AND finer."timestamp" < %(end)s
        AND bucket.starts >= %(begin)s
        AND bucket.ends <= least(%(end)s, final_until() - INTERVAL '20 minutes')
    GROUP BY bucket.starts, finer.symbol
),

stored AS (
    SELECT
        made."timestamp",
        made.symbol,
        made.volume,
        made.trades,
        made.ticks
    FROM {rollup} AS made
    CROSS JOIN LATERAL bucket(%(width)s, made.symbol, made."timestamp") AS bucket
    WHERE
        made."timestamp" >= %(begin)s
        AND made."timestamp" < %(end)s
        AND bucket.ends <= least(%(end)s, final_until() - INTERVAL '20 minutes')
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
    AND NOT EXISTS (SELECT FROM stale_bar WHERE stale_bar.rollup = %(rollup)s)
ORDER BY "timestamp", symbol
