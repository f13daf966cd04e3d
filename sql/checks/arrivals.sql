-- Binds: begin, end, symbols, calendars. Symbols whose trades of that time arrived late or early, and subscribed ones
-- that are silent, with the name of the check.

-- Half of a symbol's trades arrive more than ten seconds after their time, or before it: a clock is wrong, or the feed
-- is slow.
WITH skewed AS (
    SELECT
        'clocks_agree' AS "check",
        instrument.symbol,
        arrival.newest,
        arrival.seconds
    FROM instrument
    CROSS JOIN LATERAL (
        SELECT
            max(tick.event_time) AS newest,
            percentile_cont(0.5) WITHIN GROUP (
                ORDER BY extract(EPOCH FROM tick.received_at - tick.event_time)::double precision
            ) AS seconds
        FROM tick_data AS tick
        WHERE tick.symbol = instrument.symbol AND tick.event_time >= %(begin)s AND tick.event_time < %(end)s
    ) AS arrival
    WHERE arrival.seconds NOT BETWEEN -0.5 AND 10
),

-- Silent for an hour at both ends of which its market was open.
silent AS (
    SELECT
        'subscribed_symbols_trade' AS "check",
        wanted.symbol,
        newest.event_time AS newest,
        extract(EPOCH FROM %(end)s - newest.event_time)::double precision AS seconds
    FROM unnest(%(symbols)s::text[], %(calendars)s::text[]) AS wanted (symbol, calendar)
    LEFT JOIN LATERAL (
        SELECT tick.event_time
        FROM tick_data AS tick
        WHERE tick.symbol = wanted.symbol AND tick.event_time >= %(end)s - INTERVAL '7 days'
        ORDER BY tick.event_time DESC
        LIMIT 1
    ) AS newest ON TRUE
    WHERE
        coalesce(newest.event_time < %(end)s - INTERVAL '1 hour', TRUE)
        AND is_open(wanted.calendar, %(end)s)
        AND is_open(wanted.calendar, %(end)s - INTERVAL '1 hour')
)

SELECT * FROM skewed
UNION ALL
SELECT * FROM silent
