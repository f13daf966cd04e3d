-- Binds: begin, end, step.
-- The range from begin to before end in steps, without those in which no chunk of ticks or bars lies: a single trade of
-- 1990 does not make everything look through the decades since.
WITH held AS (
    SELECT unnest(range_agg(tstzrange(range_start, range_end)) * tstzmultirange(tstzrange(%(begin)s, %(end)s))) AS span
    FROM timescaledb_information.chunks
    WHERE hypertable_name IN ('tick_data', 'ohlcv_data')
)

SELECT
    step AS "begin",
    least(step + %(step)s, upper(held.span)) AS "end"
FROM held
CROSS JOIN LATERAL generate_series(lower(held.span), upper(held.span), %(step)s::interval) AS step
WHERE step < upper(held.span)
ORDER BY step
