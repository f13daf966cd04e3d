-- Binds: begin, end, bars. Rows of volatility_<bars> that break a rule, with the name of the check.
WITH measured AS (
    SELECT
        i.symbol AS of_symbol,
        v.*,
        v.from_timestamp IS NOT NULL AS is_full,
        EXISTS (
            SELECT FROM ohlcv_data AS before
            WHERE before.symbol = i.symbol AND before."timestamp" < v.from_timestamp
        ) AS has_previous,
        newest."timestamp" AS newest_bar,
        max(v."timestamp") OVER (PARTITION BY i.symbol) AS newest_row
    FROM instrument AS i
    CROSS JOIN LATERAL (
        SELECT max(bar."timestamp") AS "timestamp"
        FROM ohlcv_data AS bar
        WHERE bar.symbol = i.symbol AND bar."timestamp" >= %(begin)s AND bar."timestamp" < %(end)s
    ) AS newest
    LEFT JOIN LATERAL volatility(i.symbol, %(begin)s, newest."timestamp", %(bars)s) AS v ON TRUE
    WHERE newest."timestamp" IS NOT NULL
)

SELECT
    rule.name AS "check",
    coalesce(row."timestamp", row.newest_bar) AS "timestamp",
    row.of_symbol AS symbol,
    row.close_to_close,
    row.parkinson,
    row.garman_klass,
    row.rogers_satchell,
    row.yang_zhang,
    row.realised,
    row.bipower,
    row.jump_share,
    row.atr
FROM measured AS row
CROSS JOIN LATERAL (
    VALUES
    (
        'measures_are_not_negative',
        coalesce(
            least(
                row.close_to_close, row.parkinson, row.garman_klass, row.rogers_satchell, row.yang_zhang,
                row.realised, row.bipower, row.atr
            ) >= 0
            -- What is no number is greater.
            AND greatest(
                row.close_to_close, row.parkinson, row.garman_klass, row.rogers_satchell, row.yang_zhang,
                row.realised, row.bipower, row.atr
            ) < 'infinity',
            TRUE
        )
    ),
    ('jump_share_is_a_share', coalesce(row.jump_share BETWEEN 0 AND 1, TRUE)),
    (
        'full_windows_have_values',
        NOT row.is_full
        OR num_nulls(
            row.close_to_close, row.parkinson, row.garman_klass, row.rogers_satchell, row.realised, row.bipower, row.atr
        ) = 0
        AND (row.yang_zhang IS NOT NULL OR NOT row.has_previous)
    ),
    ('last_row_is_fresh', coalesce(row."timestamp" <> row.newest_row OR row.newest_row = row.newest_bar, FALSE))
) AS rule (name, holds)
WHERE rule.holds IS NOT TRUE
ORDER BY 2, 3
