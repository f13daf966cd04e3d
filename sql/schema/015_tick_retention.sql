-- How far back tick_data goes. A bar whose ticks are gone can no longer be proved, and so never changes again.
CREATE TABLE IF NOT EXISTS tick_retention (
    only_row BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    dropped_before TIMESTAMPTZ NOT NULL
);

COMMENT ON COLUMN tick_retention.dropped_before IS 'Ticks before this time have been dropped';

CREATE OR REPLACE FUNCTION ticks_kept_from()
RETURNS TIMESTAMPTZ
LANGUAGE sql STABLE
AS $$
    SELECT coalesce((SELECT dropped_before FROM tick_retention), '-infinity')
$$;

-- Drops the chunks that lie wholly before older_than; gives the new beginning of tick_data.
CREATE OR REPLACE FUNCTION drop_ticks(older_than TIMESTAMPTZ)
RETURNS TIMESTAMPTZ
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
BEGIN
    INSERT INTO tick_retention AS known (dropped_before)
    SELECT max(range_end)
    FROM timescaledb_information.chunks
    WHERE hypertable_name = 'tick_data' AND range_end <= older_than
    HAVING max(range_end) IS NOT NULL
    ON CONFLICT (only_row) DO UPDATE SET dropped_before = greatest(known.dropped_before, excluded.dropped_before);
    PERFORM drop_chunks('tick_data', older_than => older_than);
    RETURN ticks_kept_from();
END
$$;
