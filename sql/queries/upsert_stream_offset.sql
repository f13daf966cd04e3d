-- Binds: stream, topic_id, ended_at, complete_until, and lists partitions, next_offsets. An offset never goes back.
INSERT INTO stream_offset AS known (stream, topic_id, partition, next_offset, updated_at, complete_until)
SELECT %(stream)s, %(topic_id)s, place.partition, place.next_offset, to_timestamp(%(ended_at)s), to_timestamp(%(complete_until)s)
FROM unnest(%(partitions)s::integer[], %(next_offsets)s::bigint[]) AS place (partition, next_offset)
ON CONFLICT (stream, topic_id, partition) DO UPDATE SET
    next_offset = excluded.next_offset,
    complete_until = greatest(known.complete_until, excluded.complete_until),
    updated_at = excluded.updated_at
WHERE known.next_offset <= excluded.next_offset
