-- Binds: limit. Takes late minutes whose trades both streams have committed; one that gets another late trade
-- meanwhile comes again. The bar is no part of the join: in the columnstore no row can take part in a lock.
DELETE FROM late_minute AS taken
USING (
    SELECT
        late."timestamp",
        late.symbol
    FROM late_minute AS late
    WHERE (
        SELECT is_settled(late."timestamp", late.symbol, max(bar.updated_at), max(bar.ticks))
        FROM ohlcv_data AS bar
        WHERE bar."timestamp" = late."timestamp" AND bar.symbol = late.symbol
    )
    ORDER BY late.noted_at
    LIMIT %(limit)s
    FOR UPDATE OF late SKIP LOCKED
) AS due
WHERE taken."timestamp" = due."timestamp" AND taken.symbol = due.symbol
RETURNING taken."timestamp", taken.symbol
