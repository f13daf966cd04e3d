-- Identifiers: violations (a statement of sql/checks that gives rows with the name of a check). Bind: sample. At most so
-- many rows of each check, with their number.
SELECT *
FROM (
    SELECT
        violation.*,
        count(*) OVER of_check AS found,
        row_number() OVER of_check AS place
    FROM (
{violations}
    ) AS violation
    WINDOW of_check AS (PARTITION BY violation."check")
) AS numbered
WHERE place <= %(sample)s
