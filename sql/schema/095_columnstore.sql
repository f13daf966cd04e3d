-- Old chunks of ticks and bars become columns where TimescaleDB can do that (its community edition). Rows may still be
-- written there, at a few ten thousand a second, so it is done when no stream and no rebuild does so any more: when Kafka
-- has forgotten them, which takes 7 days by default, and a day later.
DO $$
BEGIN
    IF current_setting('timescaledb.license') = 'timescale' THEN
        ALTER TABLE tick_data SET (
            timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', timescaledb.orderby = 'event_time, seq'
        );
        ALTER TABLE ohlcv_data SET (
            timescaledb.enable_columnstore, timescaledb.segmentby = 'symbol', timescaledb.orderby = 'timestamp'
        );
        CALL add_columnstore_policy('tick_data', after => INTERVAL '8 days', if_not_exists => TRUE);
        CALL add_columnstore_policy('ohlcv_data', after => INTERVAL '8 days', if_not_exists => TRUE);
    END IF;
END
$$;
