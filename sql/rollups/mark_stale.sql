-- Identifiers: rollup, source. Binds: rollup, begin, end. Lets the next refresh make every bar of the range anew.
INSERT INTO stale_bar (rollup, "timestamp", symbol)
SELECT %(rollup)s, "timestamp", symbol FROM {source}
WHERE "timestamp" >= %(begin)s AND "timestamp" < %(end)s
UNION
SELECT %(rollup)s, "timestamp", symbol FROM {rollup}
WHERE "timestamp" >= %(begin)s AND "timestamp" < %(end)s
