-- Binds: lists timestamp, symbol.
INSERT INTO late_minute ("timestamp", symbol)
SELECT late."timestamp", late.symbol
FROM unnest(%(timestamp)s::timestamptz[], %(symbol)s::text[]) AS late ("timestamp", symbol)
ORDER BY late."timestamp", late.symbol
ON CONFLICT ("timestamp", symbol) DO UPDATE SET noted_at = excluded.noted_at
