-- What the chunks of ticks and bars cover, from the catalog: asking the tables would read all of them.
SELECT
    min(range_start) AS first,
    max(range_end) AS last
FROM timescaledb_information.chunks
WHERE hypertable_name IN ('tick_data', 'ohlcv_data')
