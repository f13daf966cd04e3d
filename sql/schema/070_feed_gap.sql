-- When the feed is known to have been away: what the bars of that time may lack.
CREATE TABLE IF NOT EXISTS feed_gap (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    symbol TEXT,
    started TIMESTAMPTZ NOT NULL,
    ended TIMESTAMPTZ,
    cause TEXT NOT NULL CHECK (
        cause IN (
            'disconnected', 'silent', 'subscription rejected', 'producer down', 'expired in Kafka', 'other topic'
        )
    ),
    detail TEXT,
    is_marked BOOLEAN NOT NULL DEFAULT FALSE,
    is_searched BOOLEAN NOT NULL DEFAULT FALSE,
    CHECK (ended >= started)
);

COMMENT ON TABLE feed_gap IS 'When the feed is known to have been away';
COMMENT ON COLUMN feed_gap.symbol IS 'Symbol as Finnhub writes it; null: every symbol';
COMMENT ON COLUMN feed_gap.started IS 'Until when all that the feed sent had come';
COMMENT ON COLUMN feed_gap.ended IS 'The first sign of life after it; null: it lasts';
-- disconnected: no connection to the feed. silent: no trade for longer than the symbol's rhythm allows. subscription
-- rejected: by Finnhub. producer down: nobody listened. expired in Kafka: dropped from the topic before it was taken in.
-- other topic: the topic was another one.
COMMENT ON COLUMN feed_gap.cause IS 'Why: connection, silence of a symbol, Finnhub''s refusal, the producer, or Kafka';
COMMENT ON COLUMN feed_gap.detail IS 'What is known beside the cause, such as the text of an error';
COMMENT ON COLUMN feed_gap.is_marked IS
'gap_seconds of the bars takes it into account; false again whenever the row changes';
COMMENT ON COLUMN feed_gap.is_searched IS
'What came after it has been searched for what came before (suspected_duplicate)';

CREATE INDEX IF NOT EXISTS feed_gap_started ON feed_gap (started);

-- The gaps that the bars do not show yet, which are always few.
CREATE INDEX IF NOT EXISTS feed_gap_not_marked ON feed_gap (started) WHERE NOT is_marked;

-- How many seconds of a time the feed of a symbol was away: the union of all gaps that concern it.
CREATE OR REPLACE FUNCTION seconds_away(of_symbol TEXT, begins TIMESTAMPTZ, ends TIMESTAMPTZ)
RETURNS DOUBLE PRECISION
LANGUAGE sql STABLE
SET search_path = public, pg_temp
AS $$
    SELECT coalesce(sum(extract(EPOCH FROM upper(part) - lower(part))), 0)::double precision
    FROM (
        -- One that lasts may have begun after this transaction.
        SELECT
            range_agg(
                tstzrange(gap.started, coalesce(gap.ended, greatest(gap.started, now()))) * tstzrange(begins, ends)
            ) AS parts
        FROM feed_gap AS gap
        WHERE
            gap.started < ends
            AND coalesce(gap.ended, now()) > begins
            AND (gap.symbol IS NULL OR gap.symbol = of_symbol)
    ) AS overlap
    CROSS JOIN LATERAL unnest(overlap.parts) AS part
$$;

-- Tells the bars of gaps how many seconds of their minute the feed was away; gives how many bars have changed. Bar by bar:
-- of bars that are stored as columns, an update turns back into rows whatever its own condition on time and symbol does
-- not exclude.
CREATE OR REPLACE FUNCTION mark_gaps()
RETURNS BIGINT
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
DECLARE
    due RECORD;
    changed BIGINT := 0;
BEGIN
    FOR due IN
        WITH candidate AS (
            -- Bars of gaps that are new or have changed: gap by gap, for which OFFSET stands, since there is mostly none,
            SELECT
                bar."timestamp",
                bar.symbol,
                bar.gap_seconds
            FROM feed_gap AS gap
            CROSS JOIN LATERAL (
                SELECT
                    covered."timestamp",
                    covered.symbol,
                    covered.gap_seconds
                FROM ohlcv_data AS covered
                WHERE
                    covered."timestamp" > gap.started - INTERVAL '1 minute'
                    AND covered."timestamp" < coalesce(gap.ended, now())
                    AND (gap.symbol IS NULL OR gap.symbol = covered.symbol)
                OFFSET 0
            ) AS bar
            WHERE NOT gap.is_marked
            UNION
            -- and bars that are newer than their gaps were marked.
            SELECT
                bar."timestamp",
                bar.symbol,
                bar.gap_seconds
            FROM ohlcv_data AS bar
            WHERE
                NOT bar.is_final
                AND (
                    bar.gap_seconds > 0
                    OR EXISTS (
                        SELECT FROM feed_gap AS gap
                        WHERE
                            gap.started < bar."timestamp" + INTERVAL '1 minute'
                            AND coalesce(gap.ended, now()) > bar."timestamp"
                            AND (gap.symbol IS NULL OR gap.symbol = bar.symbol)
                    )
                )
        ),

        away AS (
            SELECT
                "timestamp",
                symbol,
                gap_seconds,
                seconds_away(symbol, "timestamp", "timestamp" + INTERVAL '1 minute') AS seconds
            FROM candidate
        ),

        marked AS (
            UPDATE feed_gap SET is_marked = TRUE
            WHERE NOT is_marked AND ended IS NOT NULL
        )

        SELECT
            "timestamp",
            symbol,
            seconds
        FROM away
        WHERE gap_seconds <> seconds
        ORDER BY "timestamp", symbol
    LOOP
        UPDATE ohlcv_data SET gap_seconds = due.seconds
        WHERE "timestamp" = due."timestamp" AND symbol = due.symbol;
        changed := changed + 1;
    END LOOP;
    RETURN changed;
END
$$;
