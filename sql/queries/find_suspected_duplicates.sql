-- Trades of the first minute after an outage that equal one of the ten minutes before it, at the same place in their
-- message. An outage is searched once, when the tick stream has committed that minute. What had come before its end is
-- not of a later time, but for clocks that differ: newer trades are not looked up.
WITH outage AS (
    UPDATE feed_gap SET is_searched = TRUE
    WHERE
        NOT is_searched
        AND symbol IS NULL
        AND ended + INTERVAL '1 minute' < (SELECT min(tick_complete_until) FROM stream_position)
    RETURNING id, started, ended
)

INSERT INTO suspected_duplicate (symbol, event_time, seq, original_seq, gap_id)
SELECT DISTINCT ON (after.symbol, after.event_time, after.seq)
    after.symbol,
    after.event_time,
    after.seq,
    before.seq,
    outage.id
FROM outage
INNER JOIN tick_data AS after
    ON
        after.event_time >= outage.started - INTERVAL '10 minutes'
        AND after.event_time < outage.ended + INTERVAL '10 seconds'
        AND after.received_at >= outage.ended
        AND after.received_at < outage.ended + INTERVAL '1 minute'
INNER JOIN tick_data AS before
    ON
        after.symbol = before.symbol
        AND after.event_time = before.event_time
        AND after.seq & 4095 = before.seq & 4095
        AND (after.price, after.volume) = (before.price, before.volume)
        AND after.conditions IS NOT DISTINCT FROM before.conditions
        AND before.received_at >= outage.started - INTERVAL '10 minutes'
        AND before.received_at < outage.ended
ORDER BY after.symbol, after.event_time, after.seq, before.seq DESC
ON CONFLICT DO NOTHING
