-- The volume-weighted average price since the day's beginning, and bands of one and two volume-weighted standard
-- deviations of the minutes' vwap around it. A day is as in ohlcv_1d; bars outside of any have no row.
CREATE OR REPLACE FUNCTION vwap_bands(of_symbol TEXT, begins TIMESTAMPTZ, ends TIMESTAMPTZ)
RETURNS TABLE (
    "timestamp" TIMESTAMPTZ,
    symbol TEXT,
    from_timestamp TIMESTAMPTZ,
    vwap DOUBLE PRECISION,
    deviation DOUBLE PRECISION,
    lower_2 DOUBLE PRECISION,
    lower_1 DOUBLE PRECISION,
    upper_1 DOUBLE PRECISION,
    upper_2 DOUBLE PRECISION
)
LANGUAGE plpgsql STABLE ROWS 1000
SET search_path = public, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    since TIMESTAMPTZ := coalesce(
        (SELECT d.starts FROM trading_day(of_symbol, begins) AS d WHERE isfinite(begins)), begins
    );
BEGIN
    RETURN QUERY
    WITH bar AS (
        SELECT
            b."timestamp",
            d.starts,
            b.volume,
            -- Of distances from a price nearby, whose squares do not lose digits.
            first_value(b.open) OVER (PARTITION BY d.starts ORDER BY b."timestamp") AS origin,
            b.vwap
        FROM ohlcv_data AS b
        CROSS JOIN LATERAL trading_day(of_symbol, b."timestamp") AS d
        WHERE b.symbol = of_symbol AND b."timestamp" >= since AND b."timestamp" <= ends
    ),

    sums AS (
        SELECT
            b."timestamp",
            b.starts,
            b.origin,
            sum(b.volume) OVER so_far AS volume,
            sum(b.volume * (b.vwap - b.origin)) OVER so_far AS moment_1,
            sum(b.volume * (b.vwap - b.origin) ^ 2) OVER so_far AS moment_2
        FROM bar AS b
        WINDOW so_far AS (PARTITION BY b.starts ORDER BY b."timestamp")
    ),

    averages AS (
        SELECT
            s."timestamp",
            s.starts,
            s.origin + s.moment_1 / s.volume AS vwap,
            sqrt(greatest(0, s.moment_2 / s.volume - (s.moment_1 / s.volume) ^ 2)) AS deviation
        FROM sums AS s
        WHERE s.volume > 0 AND s."timestamp" >= begins
    )

    SELECT
        a."timestamp",
        of_symbol,
        a.starts,
        a.vwap,
        a.deviation,
        a.vwap - 2 * a.deviation,
        a.vwap - a.deviation,
        a.vwap + a.deviation,
        a.vwap + 2 * a.deviation
    FROM averages AS a
    ORDER BY a."timestamp";
END
$$;

CREATE OR REPLACE VIEW vwap_bands AS
SELECT
    b."timestamp",
    i.symbol,
    b.from_timestamp,
    b.vwap,
    b.deviation,
    b.lower_2,
    b.lower_1,
    b.upper_1,
    b.upper_2
FROM instrument AS i
CROSS JOIN LATERAL vwap_bands(i.symbol, '-infinity', 'infinity') AS b;
