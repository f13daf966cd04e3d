-- Where a repeated batch waits to be merged.
CREATE TEMPORARY TABLE tick_batch (LIKE tick_data) ON COMMIT DROP
