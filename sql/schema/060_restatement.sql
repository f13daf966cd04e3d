-- How a bar may change after its minute.

-- Minutes with trades that came more than two minutes after the minute's end. Each waits here until both streams have
-- committed its trades; then its bar is compared with its ticks.
CREATE TABLE IF NOT EXISTS late_minute (
    "timestamp" TIMESTAMPTZ NOT NULL,
    symbol TEXT NOT NULL,
    noted_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY ("timestamp", symbol)
);

CREATE INDEX IF NOT EXISTS late_minute_noted ON late_minute (noted_at);

-- Every change of a bar later than two minutes after its minute.
CREATE TABLE IF NOT EXISTS ohlcv_restatement (
    restated_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    "timestamp" TIMESTAMPTZ NOT NULL,
    symbol TEXT NOT NULL,
    cause TEXT NOT NULL CHECK (cause IN ('late trade', 'rebuild', 'correction')),
    old_open DOUBLE PRECISION,
    old_high DOUBLE PRECISION,
    old_low DOUBLE PRECISION,
    old_close DOUBLE PRECISION,
    old_volume DOUBLE PRECISION,
    old_trades BIGINT,
    old_ticks BIGINT,
    old_vwap DOUBLE PRECISION,
    new_open DOUBLE PRECISION,
    new_high DOUBLE PRECISION,
    new_low DOUBLE PRECISION,
    new_close DOUBLE PRECISION,
    new_volume DOUBLE PRECISION,
    new_trades BIGINT,
    new_ticks BIGINT,
    new_vwap DOUBLE PRECISION
);

COMMENT ON TABLE ohlcv_restatement IS 'Changes of bars later than two minutes after their minute';
COMMENT ON COLUMN ohlcv_restatement.cause IS 'late trade; rebuild from the topic; correction: by reconcile --repair or by hand';
COMMENT ON COLUMN ohlcv_restatement.old_open IS 'Null, as all old values, where there was no bar';
COMMENT ON COLUMN ohlcv_restatement.new_open IS 'Null, as all new values, where the bar was deleted';

CREATE INDEX IF NOT EXISTS ohlcv_restatement_bar ON ohlcv_restatement (symbol, "timestamp");
CREATE INDEX IF NOT EXISTS ohlcv_restatement_time ON ohlcv_restatement (restated_at);

-- Equal but for the order in which a sum was made: within 1e-9, relative.
CREATE OR REPLACE FUNCTION is_same(a DOUBLE PRECISION, b DOUBLE PRECISION)
RETURNS BOOLEAN
LANGUAGE sql IMMUTABLE
AS $$
    SELECT a IS NOT DISTINCT FROM b OR coalesce(abs(a - b) <= 1e-9 * greatest(abs(a), abs(b)), FALSE)
$$;

-- The writer says in stock_pipeline.cause why it writes. 'build' is the stream's ordinary work, also when it catches
-- up: it makes bars and restates none, but for those that were final: what comes for them is late.
CREATE OR REPLACE FUNCTION record_restatement()
RETURNS TRIGGER
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
DECLARE
    cause TEXT := coalesce(nullif(current_setting('stock_pipeline.cause', TRUE), ''), 'correction');
BEGIN
    IF cause = 'build' AND TG_OP = 'UPDATE' AND old.is_final THEN
        cause := 'late trade';
    END IF;
    IF
        cause = 'build'
        OR (
            TG_OP = 'UPDATE'
            AND (old.open, old.high, old.low, old.close, old.trades, old.ticks)
            = (new.open, new.high, new.low, new.close, new.trades, new.ticks)
            AND is_same(old.volume, new.volume)
            AND is_same(old.vwap, new.vwap)
        )
    THEN
        RETURN NULL;
    END IF;
    -- Old is null in an insert, new in a delete.
    INSERT INTO ohlcv_restatement (
        "timestamp", symbol, cause,
        old_open, old_high, old_low, old_close, old_volume, old_trades, old_ticks, old_vwap,
        new_open, new_high, new_low, new_close, new_volume, new_trades, new_ticks, new_vwap
    )
    VALUES (
        coalesce(new."timestamp", old."timestamp"), coalesce(new.symbol, old.symbol), cause,
        old.open, old.high, old.low, old.close, old.volume, old.trades, old.ticks, old.vwap,
        new.open, new.high, new.low, new.close, new.volume, new.trades, new.ticks, new.vwap
    );
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER restated_by_insert
AFTER INSERT ON ohlcv_data FOR EACH ROW
WHEN (new."timestamp" < now() - INTERVAL '3 minutes')
EXECUTE FUNCTION record_restatement();

CREATE OR REPLACE TRIGGER restated_by_update
AFTER UPDATE OF open, high, low, close, volume, trades, ticks, vwap ON ohlcv_data FOR EACH ROW
WHEN (new."timestamp" < now() - INTERVAL '3 minutes')
EXECUTE FUNCTION record_restatement();

CREATE OR REPLACE TRIGGER restated_by_delete
AFTER DELETE ON ohlcv_data FOR EACH ROW
WHEN (old."timestamp" < now() - INTERVAL '3 minutes')
EXECUTE FUNCTION record_restatement();

-- Whether both streams have committed the trades of a minute, so that its ticks and its bar, written at written_at
-- from bar_ticks ticks (null: there is none), have to come from the same trades.
CREATE OR REPLACE FUNCTION is_settled(
    minute TIMESTAMPTZ, of_symbol TEXT, written_at TIMESTAMPTZ, bar_ticks BIGINT
)
RETURNS BOOLEAN
LANGUAGE sql STABLE
AS $$
    SELECT
        -- tick_data has no trade that the ohlcv stream has not committed. Places in an older topic mean nothing here.
        NOT EXISTS (
            SELECT
            FROM tick_data AS t
            INNER JOIN stream_position AS p ON p.partition = kafka_partition(t.seq)
            WHERE
                t.symbol = of_symbol
                AND t.event_time >= minute
                AND t.event_time < minute + INTERVAL '1 minute'
                AND kafka_offset(t.seq) >= p.ohlcv_next
                AND (kafka_offset(t.seq) < p.tick_next OR t.received_at >= p.tick_complete_until - INTERVAL '1 minute')
        )
        -- The bar holds no trade that the tick stream has not committed: it was written before that stream was complete,
        -- or no later than the ohlcv stream's newest place, which the tick stream has passed, or from no more ticks
        -- than there are.
        AND (
            SELECT
                count(*) > 0
                AND (
                    bar_ticks IS NULL
                    OR written_at <= min(p.tick_complete_until)
                    OR (written_at <= min(p.ohlcv_updated_at) AND bool_and(p.tick_next >= p.ohlcv_next))
                    OR bar_ticks <= (
                        SELECT count(*)
                        FROM tick_data AS t
                        WHERE
                            t.symbol = of_symbol
                            AND t.event_time >= minute
                            AND t.event_time < minute + INTERVAL '1 minute'
                    )
                )
            FROM stream_position AS p
        )
$$;
