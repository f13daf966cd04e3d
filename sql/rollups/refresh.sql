-- Identifiers: rollup, source. Binds: rollup, width, begin, end.
-- Makes the bars of a rollup anew whose finer bars are not final or have changed or, where begin and end are not null, all
-- that lie from begin to before end. Gives, for each UTC day, how many bars were looked at and how many of them were
-- written or deleted. One at a time (lock.sql), and in a transaction that began with that lock: a second one would write
-- what it had read before.
WITH changed AS (
    DELETE FROM stale_bar
    WHERE
        rollup = %(rollup)s
        AND (%(begin)s::timestamptz IS NULL OR ("timestamp" >= %(begin)s AND "timestamp" < %(end)s))
    RETURNING "timestamp", symbol
),

candidate AS (
    SELECT "timestamp", symbol FROM changed
    UNION
    SELECT "timestamp", symbol FROM {source} WHERE NOT is_final AND %(begin)s::timestamptz IS NULL
    UNION
    SELECT "timestamp", symbol FROM {rollup} WHERE NOT is_final AND %(begin)s::timestamptz IS NULL
    UNION
    SELECT "timestamp", symbol FROM {source} WHERE "timestamp" >= %(begin)s AND "timestamp" < %(end)s
    UNION
    SELECT "timestamp", symbol FROM {rollup} WHERE "timestamp" >= %(begin)s AND "timestamp" < %(end)s
),

stale AS MATERIALIZED (
    SELECT DISTINCT
        bucket.starts,
        bucket.ends,
        candidate.symbol
    FROM candidate
    CROSS JOIN LATERAL bucket(%(width)s, candidate.symbol, candidate."timestamp") AS bucket
),

made AS MATERIALIZED (
    SELECT
        stale.starts AS "timestamp",
        stale.symbol,
        bar.open,
        bar.high,
        bar.low,
        bar.close,
        bar.volume,
        bar.trades,
        bar.ticks,
        bar.vwap,
        coalesce(bar.is_final AND stale.ends <= final_until(), FALSE) AS is_final,
        seconds_away(stale.symbol, stale.starts, stale.ends) AS gap_seconds
    FROM stale
    CROSS JOIN LATERAL (
        SELECT
            first(finer.open, finer."timestamp") AS open,
            max(finer.high) AS high,
            min(finer.low) AS low,
            last(finer.close, finer."timestamp") AS close,
            sum(finer.volume) AS volume,
            sum(finer.trades)::bigint AS trades,
            sum(finer.ticks)::bigint AS ticks,
            sum(finer.vwap * finer.volume) / nullif(sum(finer.volume), 0) AS vwap,
            bool_and(finer.is_final) AS is_final
        FROM {source} AS finer
        WHERE
            finer.symbol = stale.symbol
            AND finer."timestamp" >= stale.starts
            AND finer."timestamp" < stale.ends
        HAVING count(*) > 0
    ) AS bar
),

-- Bars without a finer one, and those that begin where no bucket does: a session has moved.
void AS (
    SELECT starts AS "timestamp", symbol FROM stale
    UNION
    SELECT "timestamp", symbol FROM candidate
    EXCEPT
    SELECT "timestamp", symbol FROM made
),

deleted AS (
    DELETE FROM {rollup} AS known
    USING void
    WHERE known."timestamp" = void."timestamp" AND known.symbol = void.symbol
    RETURNING known."timestamp"
),

written AS (
    INSERT INTO {rollup} AS known (
        "timestamp", symbol, open, high, low, close, volume, trades, ticks, vwap, is_final, gap_seconds
    )
    SELECT "timestamp", symbol, open, high, low, close, volume, trades, ticks, vwap, is_final, gap_seconds
    FROM made
    ORDER BY "timestamp", symbol
    ON CONFLICT ("timestamp", symbol) DO UPDATE SET
        open = excluded.open,
        high = excluded.high,
        low = excluded.low,
        close = excluded.close,
        volume = excluded.volume,
        trades = excluded.trades,
        ticks = excluded.ticks,
        vwap = excluded.vwap,
        updated_at = now(),
        is_final = excluded.is_final,
        gap_seconds = excluded.gap_seconds
    WHERE
        (
            known.open, known.high, known.low, known.close, known.trades, known.ticks, known.is_final,
            known.gap_seconds
        ) IS DISTINCT FROM (
            excluded.open, excluded.high, excluded.low, excluded.close, excluded.trades, excluded.ticks,
            excluded.is_final, excluded.gap_seconds
        )
        OR NOT is_same(known.volume, excluded.volume)
        OR NOT is_same(known.vwap, excluded.vwap)
    RETURNING known."timestamp"
)

SELECT
    ((moment."timestamp") AT TIME ZONE 'UTC')::date AS day,
    sum(moment.looked_at)::bigint AS looked_at,
    sum(moment.changed)::bigint AS changed
FROM (
    SELECT starts AS "timestamp", 1 AS looked_at, 0 AS changed FROM stale
    UNION ALL
    SELECT "timestamp", 0, 1 FROM deleted
    UNION ALL
    SELECT "timestamp", 0, 1 FROM written
) AS moment
GROUP BY day
ORDER BY day
