-- Binds: rollup. One refresh of a rollup at a time, to the end of the transaction.
SELECT pg_advisory_xact_lock(hashtext('stock_pipeline.rollup'), hashtext(%(rollup)s))
