-- The bar function: the same rules as spark/ohlcv_streaming.py, from tick_data.

-- What a trade with these condition codes may do to its bar.
CREATE OR REPLACE FUNCTION trade_rights(conditions TEXT [], in_regular_session BOOLEAN, eligibility TEXT)
RETURNS TABLE (updates_high_low BOOLEAN, updates_last BOOLEAN, updates_volume BOOLEAN)
LANGUAGE sql STABLE
AS $$
    SELECT
        coalesce(bool_and(c.updates_high_low AND (c.session = 'any' OR NOT in_regular_session)), TRUE),
        coalesce(bool_and(c.updates_last AND (c.session = 'any' OR NOT in_regular_session)), TRUE),
        coalesce(bool_and(c.updates_volume), TRUE)
    FROM trade_condition AS c
    WHERE eligibility = 'consolidated' AND c.code::text = ANY(conditions)
$$;

-- Sessions matter to stocks; everything else is always in session.
CREATE OR REPLACE FUNCTION in_regular_session(of_symbol TEXT, at TIMESTAMPTZ)
RETURNS BOOLEAN
LANGUAGE sql STABLE
AS $$
    SELECT
        coalesce((SELECT i.asset_class <> 'stock' FROM instrument AS i WHERE i.symbol = of_symbol), FALSE)
        OR is_open('XNYS', at)
$$;

-- The ticks of each minute, those with the same condition codes together: they have the same rights.
CREATE OR REPLACE FUNCTION alike_ticks(first_minute TIMESTAMPTZ, end_minute TIMESTAMPTZ, only_symbol TEXT)
RETURNS TABLE (
    minute TIMESTAMPTZ,
    symbol TEXT,
    conditions TEXT [],
    high DOUBLE PRECISION,
    low DOUBLE PRECISION,
    volume DOUBLE PRECISION,
    notional DOUBLE PRECISION,
    trades BIGINT,
    ticks BIGINT
)
LANGUAGE plpgsql STABLE ROWS 5000
SET search_path = public, pg_temp
-- Planned for the range at hand: a single bar by the index, an hour by one scan.
SET plan_cache_mode = force_custom_plan
-- The number of groups is overestimated by far; sorting ten million ticks takes three times as long as hashing.
SET work_mem = '64MB'
SET enable_sort = off
AS $$
BEGIN
    RETURN QUERY
    SELECT
        time_bucket('1 minute', t.event_time),
        t.symbol,
        t.conditions,
        max(t.price),
        min(t.price),
        sum(t.volume),
        sum(t.price * t.volume),
        count(*) FILTER (WHERE t.volume > 0),
        count(*)
    FROM tick_data AS t
    WHERE
        t.event_time >= first_minute
        AND t.event_time < end_minute
        AND (only_symbol IS NULL OR t.symbol = only_symbol)
    GROUP BY 1, 2, 3;
END
$$;

-- The ticks of a minute that update last. The planner puts its text into the query, which so follows the index.
CREATE OR REPLACE FUNCTION last_ticks(
    of_symbol TEXT, minute TIMESTAMPTZ, in_regular_session BOOLEAN, eligibility TEXT
)
RETURNS TABLE (event_time TIMESTAMPTZ, seq BIGINT, price DOUBLE PRECISION)
LANGUAGE sql STABLE
AS $$
    SELECT
        t.event_time,
        t.seq,
        t.price
    FROM tick_data AS t
    WHERE
        t.symbol = of_symbol
        AND t.event_time >= minute
        AND t.event_time < minute + INTERVAL '1 minute'
        AND (SELECT r.updates_last FROM trade_rights(t.conditions, in_regular_session, eligibility) AS r)
$$;

-- Bars of the minutes from first_minute to before end_minute; of all symbols where only_symbol is null.
CREATE OR REPLACE FUNCTION bars_from_ticks(
    first_minute TIMESTAMPTZ, end_minute TIMESTAMPTZ, only_symbol TEXT, eligibility TEXT
)
RETURNS TABLE (
    "timestamp" TIMESTAMPTZ,
    symbol TEXT,
    open DOUBLE PRECISION,
    high DOUBLE PRECISION,
    low DOUBLE PRECISION,
    close DOUBLE PRECISION,
    volume DOUBLE PRECISION,
    trades BIGINT,
    ticks BIGINT,
    vwap DOUBLE PRECISION
)
LANGUAGE sql STABLE
AS $$
    WITH alike AS MATERIALIZED (
        SELECT
            a.*,
            in_regular_session(a.symbol, a.minute) AS regular
        FROM alike_ticks(first_minute, end_minute, only_symbol) AS a
    ),

    bars AS (
        SELECT
            a.minute,
            a.symbol,
            a.regular,
            max(a.high) FILTER (WHERE r.updates_high_low) AS high,
            min(a.low) FILTER (WHERE r.updates_high_low) AS low,
            coalesce(sum(a.volume) FILTER (WHERE r.updates_volume), 0) AS volume,
            sum(a.notional) FILTER (WHERE r.updates_volume) AS notional,
            coalesce(sum(a.trades) FILTER (WHERE r.updates_volume), 0)::bigint AS trades,
            sum(a.ticks)::bigint AS ticks
        FROM alike AS a
        CROSS JOIN LATERAL trade_rights(a.conditions, a.regular, eligibility) AS r
        GROUP BY a.minute, a.symbol, a.regular
        HAVING bool_or(r.updates_last)
    )

    SELECT
        b.minute,
        b.symbol,
        opening.price,
        b.high,
        b.low,
        closing.price,
        b.volume,
        b.trades,
        b.ticks,
        CASE WHEN b.volume > 0 THEN b.notional / b.volume END
    FROM bars AS b
    CROSS JOIN LATERAL (
        SELECT t.price
        FROM last_ticks(b.symbol, b.minute, b.regular, eligibility) AS t
        ORDER BY t.event_time, t.seq
        LIMIT 1
    ) AS opening
    CROSS JOIN LATERAL (
        SELECT t.price
        FROM last_ticks(b.symbol, b.minute, b.regular, eligibility) AS t
        ORDER BY t.event_time DESC, t.seq DESC
        LIMIT 1
    ) AS closing
$$;
