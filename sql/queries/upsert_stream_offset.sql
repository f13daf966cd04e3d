-- Binds: stream, topic_id, and lists partitions, next_offsets. An offset never goes back.
INSERT INTO stream_offset AS known (stream, topic_id, partition, next_offset)
SELECT %(stream)s, %(topic_id)s, place.partition, place.next_offset
FROM unnest(%(partitions)s::integer[], %(next_offsets)s::bigint[]) AS place (partition, next_offset)
ON CONFLICT (stream, topic_id, partition) DO UPDATE SET
    next_offset = excluded.next_offset,
    updated_at = now()
WHERE known.next_offset < excluded.next_offset
