-- Binds: begin, end, symbol (null: all), began. Bars that no trade of the topic makes.
DELETE FROM ohlcv_data AS known
WHERE
    known."timestamp" >= %(begin)s
    AND known."timestamp" < %(end)s
    AND (%(symbol)s::text IS NULL OR known.symbol = %(symbol)s)
    AND known.updated_at < %(began)s
    AND NOT EXISTS (
        SELECT FROM rebuild_bar AS bar
        WHERE bar."timestamp" = known."timestamp" AND bar.symbol = known.symbol
    )
