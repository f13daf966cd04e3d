-- Binds: stream, topic_id.
SELECT partition, next_offset
FROM stream_offset
WHERE stream = %(stream)s AND topic_id = %(topic_id)s
