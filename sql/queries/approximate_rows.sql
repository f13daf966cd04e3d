-- Binds: table. From the statistics, since counting a large table takes long; null before the first of them.
SELECT nullif(approximate_row_count(%(table)s), 0) AS rows
