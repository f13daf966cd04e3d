-- Binds: minute, symbols. With both: of bars that are stored as columns, an update turns back into rows whatever its own
-- condition on time and symbol does not exclude.
UPDATE ohlcv_data SET is_final = TRUE
WHERE NOT is_final AND "timestamp" = %(minute)s AND symbol = ANY(%(symbols)s)
