-- Bars become final when nothing is left that could change them in the ordinary way.
UPDATE ohlcv_data SET is_final = TRUE
WHERE NOT is_final AND "timestamp" <= (SELECT final_until() - INTERVAL '1 minute')
