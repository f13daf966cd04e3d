-- Binds: begin, end, symbol (null: all), began. Bars that the stream wrote meanwhile may hold trades that the rebuild has
-- not read: they are compared with their ticks later.
INSERT INTO late_minute ("timestamp", symbol)
SELECT "timestamp", symbol
FROM ohlcv_data
WHERE
    "timestamp" >= %(begin)s
    AND "timestamp" < %(end)s
    AND (%(symbol)s::text IS NULL OR symbol = %(symbol)s)
    AND updated_at >= %(began)s
ORDER BY "timestamp", symbol
ON CONFLICT ("timestamp", symbol) DO UPDATE SET noted_at = excluded.noted_at
