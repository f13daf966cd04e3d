-- In the order of the key, so that two writers of the same trades cannot deadlock.
INSERT INTO tick_data (symbol, price, event_time, volume, seq, conditions, received_at)
SELECT symbol, price, event_time, volume, seq, conditions, received_at
FROM tick_batch
ORDER BY symbol, event_time, seq
ON CONFLICT DO NOTHING
