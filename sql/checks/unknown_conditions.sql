-- Binds: begin, end. Warns: condition codes that trade_condition does not know; their trades count as eligible.
SELECT
    'conditions_are_known' AS "check",
    given.code,
    count(*) AS trades,
    min(tick.symbol) AS example
FROM tick_data AS tick
CROSS JOIN LATERAL unnest(tick.conditions) AS given (code)
WHERE
    tick.event_time >= %(begin)s
    AND tick.event_time < %(end)s
    AND tick.conditions IS NOT NULL
    AND NOT EXISTS (SELECT FROM trade_condition AS known WHERE known.code::text = given.code)
GROUP BY given.code
ORDER BY trades DESC
