-- Minutes whose bars nothing is left to change in the ordinary way, with the symbols of those bars, the oldest first: those
-- of an hour, so that what there is to do at once does not grow with what waits.
SELECT
    "timestamp" AS minute,
    array_agg(symbol) AS symbols
FROM ohlcv_data
WHERE
    NOT is_final
    AND "timestamp" <= (SELECT final_until() - INTERVAL '1 minute')
    AND "timestamp" < (SELECT min("timestamp") + INTERVAL '1 hour' FROM ohlcv_data WHERE NOT is_final)
GROUP BY "timestamp"
ORDER BY "timestamp"
