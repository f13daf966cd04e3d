-- Binds: timestamp, symbol. For a bar that no tick makes.
DELETE FROM ohlcv_data
WHERE "timestamp" = %(timestamp)s AND symbol = %(symbol)s
