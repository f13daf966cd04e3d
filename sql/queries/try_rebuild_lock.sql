-- False where another rebuild runs; the lock ends with the connection.
SELECT pg_try_advisory_lock(hashtext('stock_pipeline.rebuild'))
