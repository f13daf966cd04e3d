-- Minutes whose bars nothing is left to change in the ordinary way, with the symbols of those bars, the oldest first.
SELECT
    "timestamp" AS minute,
    array_agg(symbol) AS symbols
FROM ohlcv_data
WHERE NOT is_final AND "timestamp" <= (SELECT final_until() - INTERVAL '1 minute')
GROUP BY "timestamp"
ORDER BY "timestamp"
