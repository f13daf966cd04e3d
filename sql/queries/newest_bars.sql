-- Identifier: bars. Binds: symbol (null: all), limit. The newest bars, oldest first.
SELECT *
FROM (
    SELECT *
    FROM {bars}
    WHERE %(symbol)s::text IS NULL OR symbol = %(symbol)s
    ORDER BY "timestamp" DESC, symbol
    LIMIT %(limit)s
) AS newest
ORDER BY "timestamp", symbol
