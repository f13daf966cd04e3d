-- The writer fills tables and cannot alter them; the reader sees them.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO stocks_writer, stocks_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO stocks_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO stocks_reader;
GRANT TRUNCATE ON rebuild_tick, rebuild_bar TO stocks_writer;
-- The writer collects a batch in a temporary table before it merges it.
DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO stocks_writer', current_database()); END $$;
