-- Binds: begin, end, symbols, calendars. What is wrong with the ticks received then, and with the symbols that are subscribed to,
-- with the name of the check.
WITH recent AS (
    SELECT
        tick.symbol,
        tick.price,
        tick.event_time,
        tick.seq,
        tick.received_at,
        count(*) OVER (PARTITION BY tick.symbol, tick.event_time, tick.seq) AS copies
    FROM tick_data AS tick
    WHERE tick.event_time >= %(begin)s AND tick.event_time < %(end)s
),

broken AS (
    SELECT
        rule.name AS "check",
        recent.symbol,
        recent.event_time,
        recent.seq,
        recent.price,
        recent.received_at,
        NULL::double precision AS seconds
    FROM recent
    CROSS JOIN LATERAL (
        VALUES
        ('prices_are_positive', recent.price > 0 AND recent.price < 'infinity'),
        ('keys_are_unique', recent.copies = 1),
        ('symbols_are_there', recent.symbol <> '')
    ) AS rule (name, holds)
    WHERE rule.holds IS NOT TRUE
),

-- Half of a symbol's trades arrive more than ten seconds after their time, or before it: a clock is wrong, or the feed
-- is slow.
skewed AS (
    SELECT
        'clocks_agree' AS "check",
        recent.symbol,
        max(recent.event_time) AS event_time,
        NULL::bigint AS seq,
        NULL::double precision AS price,
        max(recent.received_at) AS received_at,
        percentile_cont(0.5) WITHIN GROUP (
            ORDER BY extract(EPOCH FROM recent.received_at - recent.event_time)::double precision
        ) AS seconds
    FROM recent
    GROUP BY recent.symbol
    HAVING
        percentile_cont(0.5) WITHIN GROUP (
            ORDER BY extract(EPOCH FROM recent.received_at - recent.event_time)::double precision
        ) NOT BETWEEN -0.5 AND 10
),

-- Silent for an hour in which its market was open: the session has begun before it and goes on.
silent AS (
    SELECT
        'subscribed_symbols_trade' AS "check",
        wanted.symbol,
        newest.event_time,
        NULL::bigint AS seq,
        NULL::double precision AS price,
        NULL::timestamptz AS received_at,
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
        AND EXISTS (
            SELECT FROM market_session AS s
            WHERE
                s.calendar = wanted.calendar
                AND s.closes > %(end)s
                AND s.opens <= %(end)s - INTERVAL '1 hour'
        )
)

SELECT * FROM broken
UNION ALL
SELECT * FROM skewed
UNION ALL
SELECT * FROM silent
