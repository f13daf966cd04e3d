-- Final is a bar 15 minutes after its minute, when both streams have committed all that Kafka held then.
UPDATE ohlcv_data SET is_final = TRUE
WHERE
    NOT is_final
    AND "timestamp" <= (
        SELECT min(least(tick_complete_until, ohlcv_complete_until)) - INTERVAL '16 minutes' FROM stream_position
    )
