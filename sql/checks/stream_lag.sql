-- Bind: stream. How far a stream is behind: its newest row of stream_stats.
SELECT
    lag_records,
    lag_seconds,
    rows_per_second,
    latency_p50,
    latency_p99,
    extract(EPOCH FROM now() - recorded_at)::double precision AS seconds_ago
FROM stream_stats
WHERE stream = %(stream)s AND recorded_at > now() - INTERVAL '1 day'
ORDER BY recorded_at DESC
LIMIT 1
