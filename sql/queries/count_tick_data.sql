-- Binds: begin, end.
SELECT count(*) AS rows
FROM tick_data
WHERE "event_time" >= %(begin)s AND "event_time" < %(end)s
