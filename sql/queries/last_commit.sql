-- Binds: stream, topic_id. When the stream last committed something of the topic; null: never.
SELECT max(updated_at)
FROM stream_offset
WHERE stream = %(stream)s AND topic_id = %(topic_id)s
