-- What the alert rules of Grafana ask for: a row for each thing that can be wrong, labels and one number.

-- Seconds since the newest trade of any symbol of a calendar that the producer subscribes to, while its market is open and
-- was ten minutes ago. A symbol that has never traded is not here: the check subscribed_symbols_trade finds it.
CREATE OR REPLACE VIEW feed_silence AS
SELECT
    i.calendar,
    -- No trade of the last week: as if the last one were of a week ago.
    extract(EPOCH FROM now() - coalesce(max(newest.event_time), now() - INTERVAL '7 days'))::double precision AS seconds
FROM service_heartbeat AS producer
CROSS JOIN unnest(producer.symbols) AS subscribed (symbol)
INNER JOIN instrument AS i ON i.symbol = subscribed.symbol
LEFT JOIN LATERAL (
    SELECT tick.event_time
    FROM tick_data AS tick
    WHERE tick.symbol = i.symbol AND tick.event_time > now() - INTERVAL '7 days'
    ORDER BY tick.event_time DESC
    LIMIT 1
) AS newest ON TRUE
WHERE
    producer.service = 'producer'
    AND is_open(i.calendar, now())
    AND is_open(i.calendar, now() - INTERVAL '10 minutes')
GROUP BY i.calendar;

-- Seconds since the newest heartbeat of the producer and the streams.
CREATE OR REPLACE VIEW service_silence AS
SELECT
    service,
    extract(EPOCH FROM now() - beat_at)::double precision AS seconds
FROM service_heartbeat;

-- How many seconds a stream is behind, where it is further behind than five minutes ago; else 0.
CREATE OR REPLACE VIEW growing_lag AS
SELECT
    stream,
    CASE WHEN lag.newest > coalesce(lag.before, 0) THEN coalesce(lag.newest, 0) ELSE 0 END AS seconds
FROM (
    SELECT
        stream,
        avg(lag_seconds) FILTER (WHERE recorded_at > now() - INTERVAL '1 minute') AS newest,
        avg(lag_seconds) FILTER (WHERE recorded_at <= now() - INTERVAL '5 minutes') AS before
    FROM stream_stats
    WHERE recorded_at > now() - INTERVAL '6 minutes'
    GROUP BY stream
) AS lag;

-- 1 where the newest evaluation of a check of severity ERROR failed, else 0.
CREATE OR REPLACE VIEW check_failure AS
SELECT
    asset,
    "check",
    CASE WHEN passed THEN 0 ELSE 1 END AS failed
FROM asset_check_state
WHERE severity = 'ERROR';

-- Bytes of all databases of the server, of which Dagster's is one, and how many are no cause for an alert.
CREATE OR REPLACE VIEW database_size AS
SELECT
    sum(pg_database_size(d.oid))::double precision AS bytes,
    max(l.database_bytes) AS most
FROM pg_database AS d
CROSS JOIN alert_limit AS l
WHERE d.datallowconn;
