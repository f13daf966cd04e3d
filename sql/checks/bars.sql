-- Identifier: bars. Binds: begin, end. Each bar that breaks a rule, with the name of the check.
WITH bar AS (
    SELECT
        "timestamp",
        symbol,
        open,
        high,
        low,
        close,
        count(*) OVER (PARTITION BY "timestamp", symbol) AS copies
    FROM {bars}
    WHERE "timestamp" >= %(begin)s AND "timestamp" < %(end)s
)

SELECT
    rule.name AS "check",
    bar.*
FROM bar
CROSS JOIN LATERAL (
    VALUES
    ('high_is_highest', bar.high >= greatest(bar.open, bar.low, bar.close)),
    ('low_is_lowest', bar.low <= least(bar.open, bar.high, bar.close)),
    ('prices_are_positive', bar.low > 0 AND greatest(bar.open, bar.high, bar.low, bar.close) < 'infinity'),
    ('keys_are_unique', bar.copies = 1),
    ('symbols_are_there', bar.symbol <> '')
) AS rule (name, holds)
WHERE rule.holds IS NOT TRUE
ORDER BY bar."timestamp", bar.symbol
