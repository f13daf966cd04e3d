-- Bars of one minute. Open is the first trade and close the last by (event_time, seq).
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
    UNIQUE ("timestamp", symbol)
);

COMMENT ON TABLE ohlcv_data IS 'Bars of one minute; written by the ohlcv stream';
COMMENT ON COLUMN ohlcv_data."timestamp" IS 'Start of the minute';
COMMENT ON COLUMN ohlcv_data.symbol IS 'Symbol as Finnhub writes it';
COMMENT ON COLUMN ohlcv_data.open IS 'Price of the first trade by (event_time, seq)';
COMMENT ON COLUMN ohlcv_data.high IS 'Highest price';
COMMENT ON COLUMN ohlcv_data.low IS 'Lowest price';
COMMENT ON COLUMN ohlcv_data.close IS 'Price of the last trade by (event_time, seq)';
COMMENT ON COLUMN ohlcv_data.volume IS 'Sum of the volumes';
COMMENT ON COLUMN ohlcv_data.trades IS 'Number of trades that update volume';
COMMENT ON COLUMN ohlcv_data.ticks IS 'Number of all trades that the bar was built from, price updates included';
COMMENT ON COLUMN ohlcv_data.vwap IS 'Volume-weighted average price; null at volume 0';
COMMENT ON COLUMN ohlcv_data.updated_at IS 'When the row was last written';

SELECT create_hypertable(
    'ohlcv_data',
    by_range('timestamp', INTERVAL '7 days'),
    create_default_indexes => FALSE,
    if_not_exists => TRUE
);

-- The bars of one symbol, newest first: what every panel asks for.
CREATE INDEX IF NOT EXISTS ohlcv_data_symbol_timestamp ON ohlcv_data (symbol, "timestamp" DESC);
