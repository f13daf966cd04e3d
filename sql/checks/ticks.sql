-- Binds: begin, end. Ticks of that time that are wrong by themselves, with the name of the check. Symbol by symbol in the
-- order of the key's index, which spares a look at the rest of a chunk, and a sort.
SELECT
    rule.name AS "check",
    traded.symbol,
    tick.event_time,
    tick.seq,
    tick.price
FROM (SELECT symbol FROM instrument UNION SELECT '') AS traded
CROSS JOIN LATERAL (
    SELECT
        t.event_time,
        t.seq,
        t.price,
        t.price > 0 AND t.price < 'infinity' AS is_price,
        (t.event_time, t.seq) IS DISTINCT FROM (lag(t.event_time) OVER in_order, lag(t.seq) OVER in_order) AS is_first
    FROM tick_data AS t
    WHERE t.symbol = traded.symbol AND t.event_time >= %(begin)s AND t.event_time < %(end)s
    WINDOW in_order AS (ORDER BY t.event_time, t.seq)
) AS tick
CROSS JOIN LATERAL (
    VALUES
    ('prices_are_positive', tick.is_price),
    ('keys_are_unique', tick.is_first),
    ('symbols_are_there', traded.symbol <> '')
) AS rule (name, holds)
WHERE (tick.is_price AND tick.is_first AND traded.symbol <> '') IS NOT TRUE AND rule.holds IS NOT TRUE
