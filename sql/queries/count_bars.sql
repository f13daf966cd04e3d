-- Identifier: bars. Binds: begin, end.
SELECT count(*) AS rows FROM {bars} WHERE "timestamp" >= %(begin)s AND "timestamp" < %(end)s
