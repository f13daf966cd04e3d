-- Identifiers: rollup, source. Binds: rollup. Whether a refresh without a range would look at any bar.
SELECT
    EXISTS (SELECT FROM stale_bar WHERE rollup = %(rollup)s)
    OR EXISTS (SELECT FROM {source} WHERE NOT is_final)
    OR EXISTS (SELECT FROM {rollup} WHERE NOT is_final) AS has_changed
