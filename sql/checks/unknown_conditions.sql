-- Binds: begin, end. Warns: condition codes that trade_condition does not know; their trades count as eligible.
SELECT
    given.code,
    count(*) AS trades,
    min(tick.symbol) AS example
FROM instrument
CROSS JOIN LATERAL (
    -- By the key's index, symbol by symbol: the rest of a chunk is not looked at.
    SELECT t.symbol, t.conditions
    FROM tick_data AS t
    WHERE
        t.symbol = instrument.symbol
        AND t.event_time >= %(begin)s
        AND t.event_time < %(end)s
        AND t.conditions IS NOT NULL
) AS tick
CROSS JOIN LATERAL unnest(tick.conditions) AS given (code)
WHERE
    NOT EXISTS (SELECT FROM trade_condition AS known WHERE known.code::text = given.code)
GROUP BY given.code
ORDER BY trades DESC
