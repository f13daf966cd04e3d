-- In the order of the key, so that the tick stream and this cannot deadlock; it may have written the same meanwhile.
INSERT INTO tick_data (symbol, price, event_time, volume, seq, conditions, received_at)
SELECT symbol, price, event_time, volume, seq, conditions, received_at
FROM rebuild_tick
ORDER BY symbol, event_time, seq
ON CONFLICT DO NOTHING
