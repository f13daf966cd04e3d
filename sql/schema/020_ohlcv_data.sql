-- Bars of one minute. Open is the first trade and close the last by (event_time, seq), of those that
-- trade_condition lets set them.
CREATE TABLE IF NOT EXISTS ohlcv_data (
    "timestamp" TIMESTAMPTZ NOT NULL,
    symbol TEXT NOT NULL,
    open DOUBLE PRECISION NOT NULL,
    high DOUBLE PRECISION NOT NULL,
    low DOUBLE PRECISION NOT NULL,
    close DOUBLE PRECISION NOT NULL,
    volume DOUBLE PRECISION NOT NULL,
    trades BIGINT NOT NULL DEFAULT 0,
    ticks BIGINT NOT NULL DEFAULT 0,
    vwap DOUBLE PRECISION,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    is_final BOOLEAN NOT NULL DEFAULT FALSE,
    gap_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    UNIQUE ("timestamp", symbol)
);

-- Tables that are older than these columns.
ALTER TABLE ohlcv_data ADD COLUMN IF NOT EXISTS is_final BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE ohlcv_data ADD COLUMN IF NOT EXISTS gap_seconds DOUBLE PRECISION NOT NULL DEFAULT 0;

COMMENT ON TABLE ohlcv_data IS 'Bars of one minute; written by the ohlcv stream';
COMMENT ON COLUMN ohlcv_data."timestamp" IS 'Start of the bar';
COMMENT ON COLUMN ohlcv_data.symbol IS 'Symbol as Finnhub writes it';
COMMENT ON COLUMN ohlcv_data.open IS 'Price of the first trade by (event_time, seq) that updates last';
COMMENT ON COLUMN ohlcv_data.high IS 'Highest price of the trades that update high and low';
COMMENT ON COLUMN ohlcv_data.low IS 'Lowest price of the trades that update high and low';
COMMENT ON COLUMN ohlcv_data.close IS 'Price of the last trade by (event_time, seq) that updates last';
COMMENT ON COLUMN ohlcv_data.volume IS 'Sum of the volumes of the trades that update volume';
COMMENT ON COLUMN ohlcv_data.trades IS 'Number of trades with a volume that update volume';
COMMENT ON COLUMN ohlcv_data.ticks IS 'Number of all trades that the bar was built from, whatever they update';
COMMENT ON COLUMN ohlcv_data.vwap IS 'Volume-weighted average price of the trades that update volume; null at volume 0';
COMMENT ON COLUMN ohlcv_data.updated_at IS 'When the values were last written';
COMMENT ON COLUMN ohlcv_data.is_final IS 'Since 15 minutes after its end; a change of a minute after that is in ohlcv_restatement';
COMMENT ON COLUMN ohlcv_data.gap_seconds IS 'Seconds of the bar in which the feed is known to have been away (feed_gap)';

SELECT create_hypertable(
    'ohlcv_data',
    by_range('timestamp', INTERVAL '7 days'),
    create_default_indexes => FALSE,
    if_not_exists => TRUE
);

-- The bars of one symbol, newest first: what every panel asks for.
CREATE INDEX IF NOT EXISTS ohlcv_data_symbol_timestamp ON ohlcv_data (symbol, "timestamp" DESC);

-- The bars that are not final, which are always few.
CREATE INDEX IF NOT EXISTS ohlcv_data_not_final ON ohlcv_data ("timestamp") WHERE NOT is_final;
