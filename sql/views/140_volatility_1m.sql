-- How far prices went within each minute.
CREATE OR REPLACE VIEW volatility_1m AS
SELECT
    "timestamp",
    symbol,
    high - low AS range
FROM ohlcv_data;
