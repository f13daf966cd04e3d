-- Binds: begin, end. Rows of vwap_bands that break a rule, with the name of the check.
WITH measured AS (
    SELECT
        i.symbol AS of_symbol,
        v.*,
        newest."timestamp" AS newest_bar,
        max(v."timestamp") OVER (PARTITION BY i.symbol) AS newest_row
    FROM instrument AS i
    -- The newest bar of a day that has had volume.
    CROSS JOIN LATERAL (
        SELECT max(bar."timestamp") AS "timestamp"
        FROM ohlcv_data AS bar
        CROSS JOIN LATERAL trading_day(i.symbol, bar."timestamp") AS day
        WHERE
            bar.symbol = i.symbol
            AND bar.volume > 0
            AND bar."timestamp" >= %(begin)s
            AND bar."timestamp" < %(end)s
    ) AS newest
    LEFT JOIN LATERAL vwap_bands(i.symbol, %(begin)s, newest."timestamp") AS v ON TRUE
    WHERE newest."timestamp" IS NOT NULL
)

SELECT
    rule.name AS "check",
    coalesce(row."timestamp", row.newest_bar) AS "timestamp",
    row.of_symbol AS symbol,
    row.vwap,
    row.deviation,
    row.lower_2,
    row.upper_2
FROM measured AS row
CROSS JOIN LATERAL (
    VALUES
    (
        'measures_are_not_negative',
        row."timestamp" IS NULL OR (row.vwap > 0 AND row.vwap < 'infinity' AND row.deviation >= 0)
    ),
    (
        'bands_lie_around_vwap',
        row."timestamp" IS NULL
        OR (
            row.lower_2 <= row.lower_1
            AND row.lower_1 <= row.vwap
            AND row.vwap <= row.upper_1
            AND row.upper_1 <= row.upper_2
            AND row.upper_2 < 'infinity'
        )
    ),
    ('last_row_is_fresh', coalesce(row."timestamp" <> row.newest_row OR row.newest_row = row.newest_bar, FALSE))
) AS rule (name, holds)
WHERE rule.holds IS NOT TRUE
ORDER BY 2, 3
