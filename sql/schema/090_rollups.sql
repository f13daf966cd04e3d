-- Coarser bars, each made of the next finer ones; sql/rollups keeps them up to date.

-- What a day is: a stock's regular session, of everything else the UTC day, which has 24 hours: where the server's time zone
-- changes its clocks, INTERVAL '1 day' has 23 or 25. No row: no day, such as before the open.
CREATE OR REPLACE FUNCTION trading_day(of_symbol TEXT, at TIMESTAMPTZ)
RETURNS TABLE (starts TIMESTAMPTZ, ends TIMESTAMPTZ)
LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT s.opens, s.closes
    FROM instrument AS i
    INNER JOIN market_session AS s ON s.calendar = i.calendar
    WHERE
        i.symbol = of_symbol
        AND i.asset_class = 'stock'
        AND s.closes > at
        AND s.closes <= at + INTERVAL '24 hours'
        AND s.opens <= at
    UNION ALL
    SELECT time_bucket('1 day', at), time_bucket('1 day', at) + INTERVAL '24 hours'
    FROM instrument AS i
    WHERE i.symbol = of_symbol AND i.asset_class <> 'stock'
$$;

-- The coarser bar that a moment lies in: where it starts and ends. No row: in none.
CREATE OR REPLACE FUNCTION bucket(width INTERVAL, of_symbol TEXT, at TIMESTAMPTZ)
RETURNS TABLE (starts TIMESTAMPTZ, ends TIMESTAMPTZ)
LANGUAGE sql STABLE ROWS 1
AS $$
    SELECT time_bucket(width, at), time_bucket(width, at) + width WHERE width < INTERVAL '24 hours'
    UNION ALL
    SELECT d.starts, d.ends FROM trading_day(of_symbol, at) AS d WHERE width >= INTERVAL '24 hours'
$$;

-- Final bars that have changed, a row for each change, until the next coarser bars have followed. Bars that are not
-- final are not here: those are looked at each time.
CREATE TABLE IF NOT EXISTS stale_bar (
    rollup TEXT NOT NULL,
    "timestamp" TIMESTAMPTZ NOT NULL,
    symbol TEXT NOT NULL,
    noted_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- A table that is older than this column.
ALTER TABLE stale_bar ADD COLUMN IF NOT EXISTS noted_at TIMESTAMPTZ NOT NULL DEFAULT now();

COMMENT ON COLUMN stale_bar.rollup IS 'Table of the coarser bars that have to follow';

-- Its arguments are the tables that have to follow.
CREATE OR REPLACE FUNCTION note_stale_bar()
RETURNS TRIGGER
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
BEGIN
    INSERT INTO stale_bar (rollup, "timestamp", symbol)
    SELECT unnest(TG_ARGV), coalesce(new."timestamp", old."timestamp"), coalesce(new.symbol, old.symbol);
    RETURN NULL;
END
$$;

DO $$
DECLARE
    rollup RECORD;
BEGIN
    FOR rollup IN
        VALUES
        ('ohlcv_5m', INTERVAL '28 days'),
        ('ohlcv_15m', INTERVAL '84 days'),
        ('ohlcv_1h', INTERVAL '364 days'),
        ('ohlcv_1d', INTERVAL '3640 days')
    LOOP
        IF to_regclass(rollup.column1) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE ohlcv_data INCLUDING ALL)', rollup.column1);
            PERFORM create_hypertable(
                rollup.column1::regclass,
                by_range('timestamp', rollup.column2),
                create_default_indexes => FALSE
            );
        END IF;
    END LOOP;
END
$$;

-- Bars of a database that is older than the rollups.
INSERT INTO stale_bar (rollup, "timestamp", symbol)
SELECT DISTINCT 'ohlcv_5m', time_bucket('5 minutes', bar."timestamp"), bar.symbol
FROM ohlcv_data AS bar
WHERE
    bar.is_final
    AND NOT EXISTS (SELECT FROM ohlcv_5m)
    AND NOT EXISTS (SELECT FROM stale_bar);

DO $$
DECLARE
    finer RECORD;
BEGIN
    FOR finer IN
        VALUES
        ('ohlcv_data', $args$'ohlcv_5m'$args$),
        ('ohlcv_5m', $args$'ohlcv_15m'$args$),
        ('ohlcv_15m', $args$'ohlcv_1h', 'ohlcv_1d'$args$)
    LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER stale_by_insert AFTER INSERT ON %I FOR EACH ROW '
            'WHEN (new.is_final) EXECUTE FUNCTION note_stale_bar(%s)',
            finer.column1, finer.column2
        );
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER stale_by_update AFTER UPDATE ON %I FOR EACH ROW '
            'WHEN (old.is_final OR new.is_final) EXECUTE FUNCTION note_stale_bar(%s)',
            finer.column1, finer.column2
        );
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER stale_by_delete AFTER DELETE ON %I FOR EACH ROW '
            'EXECUTE FUNCTION note_stale_bar(%s)',
            finer.column1, finer.column2
        );
    END LOOP;
END
$$;

-- Lets the next refresh make those final rollups anew that lie in a gap which is new or has changed: also where none of
-- their finer bars does, since most minutes of an outage have no bar. Before mark_gaps(), which marks the gaps. Gap by gap,
-- so that each is planned for its own time.
CREATE OR REPLACE FUNCTION mark_gaps_of_rollups()
RETURNS VOID
LANGUAGE plpgsql
SET search_path = public, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    gap RECORD;
BEGIN
    FOR gap IN SELECT symbol, started, coalesce(ended, now()) AS ended FROM feed_gap WHERE NOT is_marked
    LOOP
        INSERT INTO stale_bar (rollup, "timestamp", symbol)
        SELECT
            made.rollup,
            made."timestamp",
            made.symbol
        FROM (
            SELECT 'ohlcv_5m' AS rollup, INTERVAL '5 minutes' AS width, "timestamp", symbol, is_final, gap_seconds
            FROM ohlcv_5m
            UNION ALL
            SELECT 'ohlcv_15m', INTERVAL '15 minutes', "timestamp", symbol, is_final, gap_seconds FROM ohlcv_15m
            UNION ALL
            SELECT 'ohlcv_1h', INTERVAL '1 hour', "timestamp", symbol, is_final, gap_seconds FROM ohlcv_1h
            UNION ALL
            SELECT 'ohlcv_1d', INTERVAL '24 hours', "timestamp", symbol, is_final, gap_seconds FROM ohlcv_1d
        ) AS made
        CROSS JOIN LATERAL bucket(made.width, made.symbol, made."timestamp") AS bucket
        WHERE
            -- A day is the widest.
            made."timestamp" > gap.started - INTERVAL '24 hours'
            AND made."timestamp" < gap.ended
            AND bucket.ends > gap.started
            AND (gap.symbol IS NULL OR made.symbol = gap.symbol)
            AND made.is_final
            AND made.gap_seconds <> seconds_away(made.symbol, bucket.starts, bucket.ends);
    END LOOP;
END
$$;
