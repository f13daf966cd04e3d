-- Identifier: bars. Binds: symbol (null: all), before, limit. The newest bars before a moment, oldest first.
SELECT *
FROM (
    SELECT *
    FROM {bars}
    WHERE (%(symbol)s::text IS NULL OR symbol = %(symbol)s) AND "timestamp" < %(before)s
    ORDER BY "timestamp" DESC, symbol
    LIMIT %(limit)s
) AS newest
ORDER BY "timestamp", symbol
