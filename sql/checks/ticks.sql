-- Binds: begin, end. Ticks of that time that are wrong by themselves, with the name of the check.
WITH recent AS (
    SELECT
        tick.symbol,
        tick.event_time,
        tick.seq,
        tick.price,
        tick.volume,
        count(*) OVER (PARTITION BY tick.symbol, tick.event_time, tick.seq) AS copies
    FROM tick_data AS tick
    WHERE tick.event_time >= %(begin)s AND tick.event_time < %(end)s
)

SELECT
    rule.name AS "check",
    recent.symbol,
    recent.event_time,
    recent.seq,
    recent.price,
    recent.volume
FROM recent
CROSS JOIN LATERAL (
    VALUES
    ('prices_are_positive', recent.price > 0 AND recent.price < 'infinity'),
    ('keys_are_unique', recent.copies = 1),
    ('symbols_are_there', recent.symbol <> '')
) AS rule (name, holds)
WHERE rule.holds IS NOT TRUE
