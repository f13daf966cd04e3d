-- What the usual way writes to: no key for ticks, one row for each bar.
CREATE SCHEMA benchmark;

CREATE TABLE benchmark.usual_tick (
    symbol TEXT,
    price DOUBLE PRECISION,
    event_time TIMESTAMPTZ NOT NULL,
    volume DOUBLE PRECISION
);

SELECT create_hypertable('benchmark.usual_tick', by_range('event_time', INTERVAL '1 day'));

CREATE TABLE benchmark.usual_bar (
    "timestamp" TIMESTAMPTZ NOT NULL,
    symbol TEXT,
    open DOUBLE PRECISION,
    high DOUBLE PRECISION,
    low DOUBLE PRECISION,
    close DOUBLE PRECISION,
    volume DOUBLE PRECISION,
    ticks BIGINT,
    PRIMARY KEY ("timestamp", symbol)
);

SELECT create_hypertable('benchmark.usual_bar', by_range('timestamp', INTERVAL '7 days'));
