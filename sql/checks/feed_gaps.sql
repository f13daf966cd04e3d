-- Binds: begin, end. Outages of the feed in that time, the newest first.
SELECT
    'feed_was_there' AS "check",
    coalesce(symbol, 'every symbol') AS symbol,
    started,
    ended,
    cause,
    detail
FROM feed_gap
WHERE started < %(end)s AND coalesce(ended, 'infinity') > %(begin)s
ORDER BY started DESC
