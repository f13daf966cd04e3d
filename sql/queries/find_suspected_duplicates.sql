-- Messages of the first minute after an outage with the content of one of the ten minutes before it. An outage is
-- searched once, when the tick stream has committed that minute.
WITH outage AS (
    UPDATE feed_gap SET is_searched = TRUE
    WHERE
        NOT is_searched
        AND symbol IS NULL
        AND ended + INTERVAL '1 minute' < (SELECT min(tick_complete_until) FROM stream_position)
    RETURNING id, started, ended
),

message AS (
    SELECT
        outage.id,
        tick.symbol,
        min(tick.seq) AS first_seq,
        min(tick.received_at) >= outage.ended AS is_after,
        array_agg((tick.event_time, tick.price, tick.volume, tick.conditions)::text ORDER BY tick.seq) AS content
    FROM outage
    INNER JOIN tick_data AS tick
        ON
            tick.event_time >= outage.started - INTERVAL '10 minutes'
            AND tick.event_time < outage.ended + INTERVAL '2 minutes'
            AND tick.received_at >= outage.started - INTERVAL '10 minutes'
            AND tick.received_at < outage.ended + INTERVAL '1 minute'
    GROUP BY outage.id, outage.ended, tick.symbol, tick.seq >> 12
),

again AS (
    SELECT DISTINCT ON (after.first_seq)
        after.id,
        after.symbol,
        after.first_seq,
        before.first_seq AS original_seq
    FROM message AS after
    INNER JOIN message AS before
        ON after.id = before.id AND after.symbol = before.symbol AND after.content = before.content
    WHERE after.is_after AND NOT before.is_after
    ORDER BY after.first_seq, before.first_seq DESC
)

INSERT INTO suspected_duplicate (symbol, event_time, seq, original_seq, gap_id)
SELECT
    tick.symbol,
    tick.event_time,
    tick.seq,
    again.original_seq + tick.seq - again.first_seq,
    again.id
FROM again
INNER JOIN outage ON again.id = outage.id
INNER JOIN tick_data AS tick
    ON
        again.symbol = tick.symbol
        AND tick.event_time >= outage.started - INTERVAL '10 minutes'
        AND tick.event_time < outage.ended + INTERVAL '2 minutes'
        AND tick.seq >> 12 = again.first_seq >> 12
ON CONFLICT DO NOTHING
