SELECT count(*)
FROM late_minute
