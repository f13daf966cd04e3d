-- Binds: a heartbeat.
INSERT INTO service_heartbeat AS known (service, pid, started_at, version, beat_at, state, counts, symbols)
VALUES (
    %(name)s,
    %(pid)s,
    to_timestamp(%(created)s),
    %(version)s,
    to_timestamp(%(beat_at)s),
    %(state)s,
    %(counts)s,
    %(symbols)s
)
ON CONFLICT (service) DO UPDATE SET
    pid = excluded.pid,
    started_at = excluded.started_at,
    version = excluded.version,
    beat_at = excluded.beat_at,
    state = excluded.state,
    counts = excluded.counts,
    symbols = excluded.symbols
WHERE known.beat_at <= excluded.beat_at
