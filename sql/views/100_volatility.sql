-- Historical volatility of consecutive bars, across sessions. N is the number of bars in a year of trading, n that of
-- bars in the window; O, H, L, C are logarithms of prices, C' the close before, r = C - C'. Conventions of R's
-- TTR::volatility. Annualised standard deviations:
--   close_to_close   sqrt(N var(r)), of the n - 1 returns inside the window
--   parkinson        sqrt(N / (4 n ln 2) sum((H - L)^2)); Parkinson, Journal of Business 53 (1980)
--   garman_klass     sqrt(N / n sum((H - L)^2 / 2 - (2 ln 2 - 1) (C - O)^2)); Garman and Klass, Journal of Business 53
--                    (1980)
--   rogers_satchell  sqrt(N / n sum((H - C) (H - O) + (L - C) (L - O))); Rogers and Satchell, Annals of Applied
--                    Probability 1 (1991)
--   yang_zhang       sqrt(N var(O - C') + k N var(C - O) + (1 - k) rogers_satchell^2), k = 0.34 / (1.34 + (n + 1) /
--                    (n - 1)); Yang and Zhang, Journal of Business 73 (2000); its first window needs n + 1 bars
--   realised         sqrt(N / (n - 1) sum(r^2))
--   bipower          sqrt(N / (n - 2) pi / 2 sum(|r_i| |r_(i-1)|)); Barndorff-Nielsen and Shephard, Journal of Financial
--                    Econometrics 2 (2004)
-- and
--   jump_share       max(0, 1 - bipower^2 / realised^2), null where no price moved
--   atr              mean of the n - 1 true ranges inside the window, in the quote currency
-- All but timestamp and symbol are null until the window is full, and while a bar in it is impossible: a price that is not
-- above 0 or no number, a high or low that is none.

-- Sums of these move with their window exactly and in one step a row: those of double precision would be made anew for
-- each row, or drift. 40 decimals hold squares of returns of 1e-12.
CREATE OR REPLACE FUNCTION exactly(x DOUBLE PRECISION)
RETURNS NUMERIC
LANGUAGE sql IMMUTABLE
AS $$
    SELECT round(x::numeric, 40)
$$;

-- Windows of so many bars (3 or more), for the bars of a symbol from begins to ends, both included.
CREATE OR REPLACE FUNCTION volatility(of_symbol TEXT, begins TIMESTAMPTZ, ends TIMESTAMPTZ, bars INTEGER)
RETURNS TABLE (
    "timestamp" TIMESTAMPTZ,
    symbol TEXT,
    from_timestamp TIMESTAMPTZ,
    close_to_close DOUBLE PRECISION,
    parkinson DOUBLE PRECISION,
    garman_klass DOUBLE PRECISION,
    rogers_satchell DOUBLE PRECISION,
    yang_zhang DOUBLE PRECISION,
    realised DOUBLE PRECISION,
    bipower DOUBLE PRECISION,
    jump_share DOUBLE PRECISION,
    atr DOUBLE PRECISION
)
LANGUAGE plpgsql STABLE ROWS 1000
SET search_path = public, pg_temp
-- Planned for the range at hand, so that only its chunks are opened.
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    -- The bars before the range that its first windows reach back to.
    since TIMESTAMPTZ := coalesce(
        (
            SELECT b."timestamp"
            FROM ohlcv_data AS b
            WHERE b.symbol = of_symbol AND b."timestamp" < begins
            ORDER BY b."timestamp" DESC
            LIMIT 1 OFFSET bars
        ),
        '-infinity'
    );
    per_year DOUBLE PRECISION := (SELECT i.periods_per_year FROM instrument AS i WHERE i.symbol = of_symbol);
    k DOUBLE PRECISION;
BEGIN
    IF bars < 3 THEN
        RAISE EXCEPTION 'volatility needs windows of 3 bars or more, not %', bars;
    END IF;
    k := 0.34 / (1.34 + (bars + 1.0) / (bars - 1.0));
    RETURN QUERY
    WITH bar AS (
        SELECT
            b."timestamp",
            sound.*,
            lag(sound.close) OVER (ORDER BY b."timestamp") AS previous_close
        FROM ohlcv_data AS b
        LEFT JOIN LATERAL (
            SELECT b.open, b.high, b.low, b.close
            WHERE
                b.low > 0
                AND b.low <= least(b.open, b.high, b.close)
                AND b.high >= greatest(b.open, b.close)
                AND b.high < 'infinity'
        ) AS sound ON TRUE
        WHERE b.symbol = of_symbol AND b."timestamp" >= since AND b."timestamp" <= ends
    ),

    moves AS (
        SELECT
            b."timestamp",
            ln(b.close / b.previous_close) AS r,
            ln(b.open / b.previous_close) AS overnight,
            ln(b.close / b.open) AS body,
            ln(b.high / b.low) AS span,
            ln(b.high / b.close) * ln(b.high / b.open) + ln(b.low / b.close) * ln(b.low / b.open) AS satchell,
            greatest(b.high, b.previous_close) - least(b.low, b.previous_close) AS true_range
        FROM bar AS b
    ),

    pairs AS (
        SELECT
            m.*,
            abs(m.r) * abs(lag(m.r) OVER (ORDER BY m."timestamp")) AS product
        FROM moves AS m
    ),

    sums AS (
        SELECT
            p."timestamp",
            first_value(p."timestamp") OVER of_bars AS first_timestamp,
            count(p.span) OVER of_bars = bars AND count(p.r) OVER of_returns = bars - 1 AS is_full,
            count(p.overnight) OVER of_bars = bars AS has_previous,
            var_samp(exactly(p.r)) OVER of_returns AS var_r,
            sum(exactly(p.span ^ 2)) OVER of_bars AS spans,
            sum(exactly(p.span ^ 2 / 2 - (2 * ln(2.0::double precision) - 1) * p.body ^ 2)) OVER of_bars AS klass,
            sum(exactly(p.satchell)) OVER of_bars AS satchells,
            var_samp(exactly(p.overnight)) OVER of_bars AS var_overnight,
            var_samp(exactly(p.body)) OVER of_bars AS var_body,
            sum(exactly(p.r ^ 2)) OVER of_returns AS squares,
            sum(exactly(p.product)) OVER of_products AS products,
            avg(exactly(p.true_range)) OVER of_returns AS atr
        FROM pairs AS p
        WINDOW
            of_bars AS (ORDER BY p."timestamp" ROWS BETWEEN bars - 1 PRECEDING AND CURRENT ROW),
            of_returns AS (ORDER BY p."timestamp" ROWS BETWEEN bars - 2 PRECEDING AND CURRENT ROW),
            of_products AS (ORDER BY p."timestamp" ROWS BETWEEN bars - 3 PRECEDING AND CURRENT ROW)
    ),

    variances AS (
        SELECT
            s."timestamp",
            s.first_timestamp,
            s.is_full,
            s.has_previous,
            per_year * s.var_r::double precision AS close_to_close,
            per_year / (4 * bars * ln(2.0::double precision)) * s.spans::double precision AS parkinson,
            per_year / bars * s.klass::double precision AS garman_klass,
            per_year / bars * s.satchells::double precision AS rogers_satchell,
            per_year * s.var_overnight::double precision AS overnight,
            per_year * s.var_body::double precision AS body,
            per_year / (bars - 1) * s.squares::double precision AS realised,
            per_year / (bars - 2) * pi() / 2 * s.products::double precision AS bipower,
            s.atr::double precision AS atr
        FROM sums AS s
        WHERE s."timestamp" >= begins
    )

    SELECT
        v."timestamp",
        of_symbol,
        CASE WHEN v.is_full THEN v.first_timestamp END,
        CASE WHEN v.is_full THEN sqrt(v.close_to_close) END,
        CASE WHEN v.is_full THEN sqrt(v.parkinson) END,
        CASE WHEN v.is_full THEN sqrt(v.garman_klass) END,
        CASE WHEN v.is_full THEN sqrt(v.rogers_satchell) END,
        CASE WHEN v.has_previous THEN sqrt(v.overnight + k * v.body + (1 - k) * v.rogers_satchell) END,
        CASE WHEN v.is_full THEN sqrt(v.realised) END,
        CASE WHEN v.is_full THEN sqrt(v.bipower) END,
        CASE WHEN v.is_full AND v.realised > 0 THEN greatest(0, 1 - v.bipower / v.realised) END,
        CASE WHEN v.is_full THEN v.atr END
    FROM variances AS v
    ORDER BY v."timestamp";
END
$$;
