-- How far ahead market_session reaches; null where it is empty.
SELECT min(calendar_end.closes)
FROM (SELECT max(closes) AS closes FROM market_session GROUP BY calendar) AS calendar_end
