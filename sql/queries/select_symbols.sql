SELECT symbol
FROM instrument
ORDER BY symbol
