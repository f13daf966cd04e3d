-- Where TimescaleDB runs jobs (its community edition), one drops old ticks each day; elsewhere Dagster does.

CREATE OR REPLACE PROCEDURE drop_old_ticks(job_id INTEGER, config JSONB)
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
BEGIN
    PERFORM drop_ticks(now() - make_interval(days => (config ->> 'days')::integer));
END
$$;

DO $$
DECLARE
    kept JSONB := jsonb_build_object('days', current_setting('stock_pipeline.tick_retention_days')::integer);
    known INTEGER := (SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'drop_old_ticks');
BEGIN
    IF current_setting('timescaledb.license') = 'timescale' AND known IS NULL THEN
        PERFORM add_job('drop_old_ticks', INTERVAL '1 day', kept, initial_start => now() + INTERVAL '1 day');
    ELSIF current_setting('timescaledb.license') = 'timescale' THEN
        PERFORM alter_job(known, config => kept);
    END IF;
END
$$;
