-- Binds: evaluations, a JSON array of rows of asset_check_state. What is not among them is no check any more.
WITH evaluation AS (
    SELECT * FROM jsonb_populate_recordset(NULL::asset_check_state, %(evaluations)s)
),

gone AS (
    DELETE FROM asset_check_state AS known
    WHERE NOT EXISTS (
        SELECT FROM evaluation WHERE evaluation.asset = known.asset AND evaluation."check" = known."check"
    )
)

INSERT INTO asset_check_state AS known
SELECT * FROM evaluation
ON CONFLICT (asset, "check") DO UPDATE SET
    severity = excluded.severity,
    passed = excluded.passed,
    description = excluded.description,
    evaluated_at = excluded.evaluated_at
WHERE known.evaluated_at < excluded.evaluated_at
