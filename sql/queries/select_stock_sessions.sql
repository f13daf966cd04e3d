-- Regular sessions of stocks: the day in UTC, and the minutes of it in which they begin and end.
SELECT
    (opens AT TIME ZONE 'UTC')::date - DATE '1970-01-01' AS day,
    mod(extract(EPOCH FROM opens)::bigint, 86400) / 60 AS opens,
    mod(extract(EPOCH FROM closes)::bigint, 86400) / 60 AS closes
FROM market_session
WHERE calendar = 'XNYS'
ORDER BY session
