-- Regular sessions of stocks, in order: when they begin and end, in minutes since 1970.
SELECT
    extract(EPOCH FROM opens)::bigint / 60 AS opens,
    extract(EPOCH FROM closes)::bigint / 60 AS closes
FROM market_session
WHERE calendar = 'XNYS'
ORDER BY session
