-- Binds: begin, end.
SELECT count(*) AS rows
FROM ohlcv_data
WHERE "timestamp" >= %(begin)s AND "timestamp" < %(end)s
