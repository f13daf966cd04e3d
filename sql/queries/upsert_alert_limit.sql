-- Bind: database_bytes.
INSERT INTO alert_limit (database_bytes)
VALUES (%(database_bytes)s)
ON CONFLICT (only_row) DO UPDATE SET database_bytes = excluded.database_bytes
