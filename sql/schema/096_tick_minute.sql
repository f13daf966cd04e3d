-- The minutes of tick_data as TimescaleDB's own aggregation makes them, where it has one (its community edition): a second
-- opinion on bars whose trades have no conditions, made of the same ticks by none of our code. What changes within the 8
-- days in which Kafka may bring trades again is made anew; what is older than a month serves no check.
DO $$
BEGIN
    IF current_setting('timescaledb.license') = 'timescale' THEN
        CREATE MATERIALIZED VIEW IF NOT EXISTS tick_minute
        WITH (timescaledb.continuous, timescaledb.materialized_only) AS
        SELECT
            time_bucket('1 minute', event_time) AS "timestamp",
            symbol,
            max(price) AS high,
            min(price) AS low,
            sum(volume) AS volume,
            count(*) FILTER (WHERE volume > 0) AS trades,
            count(*) AS ticks,
            count(*) FILTER (WHERE cardinality(conditions) > 0) AS with_conditions
        FROM tick_data
        GROUP BY time_bucket('1 minute', event_time), symbol
        WITH NO DATA;
        PERFORM add_continuous_aggregate_policy(
            'tick_minute',
            start_offset => INTERVAL '8 days',
            end_offset => INTERVAL '2 minutes',
            schedule_interval => INTERVAL '10 minutes',
            if_not_exists => TRUE
        );
        PERFORM add_retention_policy('tick_minute', INTERVAL '1 month', if_not_exists => TRUE);
    END IF;
END
$$;
