-- Binds: begin, end. Ticks of that time that are wrong by themselves, and keys that are there twice, with the name of the
-- check. Symbol by symbol in the order of the key's index, which spares a look at the rest of a chunk, and a sort.
WITH traded AS (
    SELECT symbol FROM instrument
    UNION
    SELECT ''
)

SELECT
    rule.name AS "check",
    traded.symbol,
    tick.event_time,
    tick.seq,
    tick.price
FROM traded
CROSS JOIN LATERAL (
    SELECT
        t.event_time,
        t.seq,
        t.price,
        t.price > 0 AND t.price < 'infinity' AS is_price
    FROM tick_data AS t
    WHERE
        t.symbol = traded.symbol
        AND t.event_time >= %(begin)s
        AND t.event_time < %(end)s
        AND (t.price > 0 AND t.price < 'infinity' AND t.symbol <> '') IS NOT TRUE
) AS tick
CROSS JOIN LATERAL (
    VALUES
    ('prices_are_positive', tick.is_price),
    ('symbols_are_there', traded.symbol <> '')
) AS rule (name, holds)
WHERE rule.holds IS NOT TRUE
UNION ALL
SELECT
    'keys_are_unique',
    traded.symbol,
    twice.event_time,
    twice.seq,
    NULL
FROM traded
CROSS JOIN LATERAL (
    SELECT
        t.event_time,
        t.seq
    FROM tick_data AS t
    WHERE t.symbol = traded.symbol AND t.event_time >= %(begin)s AND t.event_time < %(end)s
    GROUP BY t.event_time, t.seq
    HAVING count(*) > 1
) AS twice
