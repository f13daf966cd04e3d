-- Binds: stream, topic_id, and lists partitions, next_offsets. What Kafka has lost of a topic has to come again.
UPDATE stream_offset AS known
SET next_offset = place.next_offset
FROM unnest(%(partitions)s::integer[], %(next_offsets)s::bigint[]) AS place (partition, next_offset)
WHERE known.stream = %(stream)s AND known.topic_id = %(topic_id)s AND known.partition = place.partition
