-- What is no cause for an alert: a view cannot read settings.
CREATE TABLE IF NOT EXISTS alert_limit (
    only_row BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    database_bytes DOUBLE PRECISION NOT NULL
);

COMMENT ON COLUMN alert_limit.database_bytes IS 'How large all databases together may be; init-db writes DB_SIZE_ALERT_GB here';
