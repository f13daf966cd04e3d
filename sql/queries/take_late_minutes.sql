-- Binds: limit. Takes late minutes whose trades both streams have committed; one that gets another late trade
-- meanwhile comes again.
DELETE FROM late_minute AS taken
USING (
    SELECT
        late."timestamp",
        late.symbol
    FROM late_minute AS late
    LEFT JOIN ohlcv_data AS bar ON late."timestamp" = bar."timestamp" AND late.symbol = bar.symbol
    WHERE is_settled(late."timestamp", late.symbol, bar.updated_at, bar.ticks)
    ORDER BY late.noted_at
    LIMIT %(limit)s
    FOR UPDATE OF late SKIP LOCKED
) AS due
WHERE taken."timestamp" = due."timestamp" AND taken.symbol = due.symbol
RETURNING taken."timestamp", taken.symbol
