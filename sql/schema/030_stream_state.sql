-- How far each stream has come. Everything below next_offset is committed to the tables, so that a stream
-- that has lost its checkpoint goes on from here.
CREATE TABLE IF NOT EXISTS stream_offset (
    stream TEXT NOT NULL,
    topic_id TEXT NOT NULL,
    partition INTEGER NOT NULL,
    next_offset BIGINT NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    complete_until TIMESTAMPTZ NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (stream, topic_id, partition)
);

-- Tables that are older than this column.
ALTER TABLE stream_offset ADD COLUMN IF NOT EXISTS complete_until TIMESTAMPTZ NOT NULL DEFAULT '-infinity';

COMMENT ON COLUMN stream_offset.topic_id IS 'Kafka''s id of the topic: one that was deleted and created again has another';
COMMENT ON COLUMN stream_offset.updated_at IS 'When the batch that came this far had ended; what the stream writes later is of later batches';
COMMENT ON COLUMN stream_offset.complete_until IS 'Everything that Kafka held at this time is committed';

-- How far both streams have come in the topic that is there now.
CREATE OR REPLACE VIEW stream_position AS
SELECT
    tick.partition,
    tick.next_offset AS tick_next,
    coalesce(ohlcv.next_offset, 0) AS ohlcv_next,
    tick.complete_until AS tick_complete_until,
    coalesce(ohlcv.complete_until, '-infinity') AS ohlcv_complete_until,
    coalesce(ohlcv.updated_at, '-infinity') AS ohlcv_updated_at
FROM stream_offset AS tick
LEFT JOIN stream_offset AS ohlcv
    ON tick.topic_id = ohlcv.topic_id AND tick.partition = ohlcv.partition AND ohlcv.stream = 'ohlcv-stream'
WHERE
    tick.stream = 'tick-stream'
    AND tick.topic_id = (
        SELECT newest.topic_id
        FROM stream_offset AS newest
        WHERE newest.stream = 'tick-stream'
        ORDER BY newest.updated_at DESC
        LIMIT 1
    );

-- Bars that ended until then are final: 15 minutes later both streams had committed all that Kafka held.
CREATE OR REPLACE FUNCTION final_until()
RETURNS TIMESTAMPTZ
LANGUAGE sql STABLE
SET search_path = public, pg_temp
AS $$
    SELECT min(least(tick_complete_until, ohlcv_complete_until)) - INTERVAL '15 minutes' FROM stream_position
$$;

-- What each stream did, a row every 10 s.
CREATE TABLE IF NOT EXISTS stream_stats (
    stream TEXT NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    records BIGINT NOT NULL,
    rows_per_second DOUBLE PRECISION NOT NULL,
    lag_records BIGINT NOT NULL,
    lag_seconds DOUBLE PRECISION NOT NULL,
    latency_p50 DOUBLE PRECISION,
    latency_p99 DOUBLE PRECISION,
    batch_seconds DOUBLE PRECISION,
    dropped_late BIGINT NOT NULL
);

COMMENT ON COLUMN stream_stats.records IS 'Kafka records taken in since the row before';
COMMENT ON COLUMN stream_stats.rows_per_second IS 'Rows written to the table, per second';
COMMENT ON COLUMN stream_stats.lag_records IS 'Kafka records not yet taken in';
COMMENT ON COLUMN stream_stats.lag_seconds IS 'Age of the newest record taken in, while there are others waiting; else 0';
COMMENT ON COLUMN stream_stats.latency_p50 IS 'Seconds from receipt to commit, median; null without rows';
COMMENT ON COLUMN stream_stats.latency_p99 IS 'Seconds from receipt to commit, 99th percentile; null without rows';
COMMENT ON COLUMN stream_stats.batch_seconds IS 'Mean duration of the batches; null without any';
COMMENT ON COLUMN stream_stats.dropped_late IS 'Trades behind the watermark, which the bars lack';

SELECT create_hypertable(
    'stream_stats',
    by_range('recorded_at', INTERVAL '7 days'),
    if_not_exists => TRUE
);

CREATE TABLE IF NOT EXISTS service_heartbeat (
    service TEXT PRIMARY KEY,
    pid INTEGER NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    version TEXT NOT NULL,
    beat_at TIMESTAMPTZ NOT NULL,
    state TEXT NOT NULL,
    counts JSONB NOT NULL,
    symbols TEXT[] NOT NULL DEFAULT '{}'
);

-- Tables that are older than this column.
ALTER TABLE service_heartbeat ADD COLUMN IF NOT EXISTS symbols TEXT[] NOT NULL DEFAULT '{}';

COMMENT ON TABLE service_heartbeat IS 'The newest heartbeat of each service, for the dashboards';
COMMENT ON COLUMN service_heartbeat.symbols IS 'What the producer subscribes to';
