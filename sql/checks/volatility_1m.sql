-- Binds: begin, end. Rows of volatility_1m that break a rule, with the name of the check.
WITH measured AS (
    SELECT
        bar.symbol,
        bar."timestamp",
        v.range,
        bar."timestamp" = max(bar."timestamp") OVER (PARTITION BY bar.symbol) AS is_newest,
        v."timestamp" IS NOT NULL AS is_there
    FROM ohlcv_data AS bar
    LEFT JOIN volatility_1m AS v ON v.symbol = bar.symbol AND v."timestamp" = bar."timestamp"
    WHERE bar."timestamp" >= %(begin)s AND bar."timestamp" < %(end)s
)

SELECT
    rule.name AS "check",
    row."timestamp",
    row.symbol,
    row.range
FROM measured AS row
CROSS JOIN LATERAL (
    VALUES
    ('measures_are_not_negative', row.range IS NULL OR (row.range >= 0 AND row.range < 'infinity')),
    ('last_row_is_fresh', row.is_there OR NOT row.is_newest)
) AS rule (name, holds)
WHERE rule.holds IS NOT TRUE
ORDER BY row."timestamp", row.symbol
