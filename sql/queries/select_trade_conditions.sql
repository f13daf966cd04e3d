SELECT
    code::text AS code,
    updates_high_low,
    updates_last,
    updates_volume,
    session
FROM trade_condition
ORDER BY trade_condition.code
