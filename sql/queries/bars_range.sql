-- The first minute and the one after the last that have a tick or a bar; null where there is neither.
SELECT
    least((SELECT min(event_time) FROM tick_data), (SELECT min("timestamp") FROM ohlcv_data)) AS first,
    greatest((SELECT max(event_time) FROM tick_data), (SELECT max("timestamp") FROM ohlcv_data)) AS last
