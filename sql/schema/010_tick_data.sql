-- Every trade, once. Finnhub gives no trade id: seq is where the trade stands in the Kafka log,
-- offset * 2^22 + partition * 2^12 + index in the message.
CREATE TABLE IF NOT EXISTS tick_data (
    symbol TEXT NOT NULL,
    price DOUBLE PRECISION NOT NULL,
    event_time TIMESTAMPTZ NOT NULL,
    volume DOUBLE PRECISION NOT NULL,
    seq BIGINT NOT NULL,
    conditions TEXT[],
    received_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (symbol, event_time, seq)
);

COMMENT ON TABLE tick_data IS 'Every trade, once; written by the tick stream';
COMMENT ON COLUMN tick_data.symbol IS 'Symbol as Finnhub writes it';
COMMENT ON COLUMN tick_data.price IS 'Price, in the quote currency';
COMMENT ON COLUMN tick_data.event_time IS 'Time of the trade, to the millisecond';
COMMENT ON COLUMN tick_data.volume IS 'Volume; 0 is a price update';
COMMENT ON COLUMN tick_data.seq IS 'Place in the Kafka log: offset * 2^22 + partition * 2^12 + index in the message';
COMMENT ON COLUMN tick_data.conditions IS 'Trade condition codes; null where the feed has none';
COMMENT ON COLUMN tick_data.received_at IS 'When the producer received the frame';

-- Where seq says that a trade stands.
CREATE OR REPLACE FUNCTION kafka_offset(seq BIGINT)
RETURNS BIGINT
LANGUAGE sql IMMUTABLE
AS $$
    SELECT seq >> 22
$$;

CREATE OR REPLACE FUNCTION kafka_partition(seq BIGINT)
RETURNS BIGINT
LANGUAGE sql IMMUTABLE
AS $$
    SELECT (seq >> 12) & 1023
$$;

SELECT create_hypertable(
    'tick_data',
    by_range('event_time', INTERVAL '1 day'),
    create_default_indexes => FALSE,
    if_not_exists => TRUE
);

-- For a range of time of all symbols: ticks lie nearly in the order of their time, so that a few pages of this index tell
-- which pages of a day's chunk to read.
CREATE INDEX IF NOT EXISTS tick_data_event_time ON tick_data USING brin (event_time) WITH (autosummarize = TRUE);
