-- The newest evaluation of each asset check, for dashboards and alerts: Dagster's own tables lie in a database that the
-- reader cannot enter.
CREATE TABLE IF NOT EXISTS asset_check_state (
    asset TEXT NOT NULL,
    "check" TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('WARN', 'ERROR')),
    passed BOOLEAN NOT NULL,
    description TEXT,
    evaluated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (asset, "check")
);

COMMENT ON TABLE asset_check_state IS 'The newest evaluation of each asset check; written by the sensor alert';
COMMENT ON COLUMN asset_check_state.severity IS 'What a failure is';
COMMENT ON COLUMN asset_check_state.description IS 'What was found; null where the check passed';
