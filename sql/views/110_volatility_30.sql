-- Volatility over 30 consecutive bars. A condition on the symbol reaches the bars, one on the time does not: panels call
-- volatility() instead.
CREATE OR REPLACE VIEW volatility_30 AS
SELECT
    v."timestamp",
    i.symbol,
    v.from_timestamp,
    v.close_to_close,
    v.parkinson,
    v.garman_klass,
    v.rogers_satchell,
    v.yang_zhang,
    v.realised,
    v.bipower,
    v.jump_share,
    v.atr
FROM instrument AS i
CROSS JOIN LATERAL volatility(i.symbol, '-infinity', 'infinity', 30) AS v;
