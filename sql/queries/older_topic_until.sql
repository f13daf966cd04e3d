-- Binds: stream, topic_id. Until when it took in trades of topics of the same name that are no more; null: there was none.
SELECT max(updated_at)
FROM stream_offset
WHERE stream = %(stream)s AND topic_id <> %(topic_id)s
