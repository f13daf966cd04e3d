INSERT INTO stream_stats (
    stream, records, rows_per_second, lag_records, lag_seconds, latency_p50, latency_p99, batch_seconds, dropped_late
)
VALUES (
    %(stream)s,
    %(records)s,
    %(rows_per_second)s,
    %(lag_records)s,
    %(lag_seconds)s,
    %(latency_p50)s,
    %(latency_p99)s,
    %(batch_seconds)s,
    %(dropped_late)s
)
