-- Identifier: bars. Binds: begin, end.
SELECT
    ("timestamp" AT TIME ZONE 'UTC')::date AS day,
    count(*) AS rows
FROM {bars}
WHERE "timestamp" >= %(begin)s AND "timestamp" < %(end)s
GROUP BY day
