-- Binds: id, symbol, started, ended (UNIX seconds; null: it lasts), cause, detail. Telling it twice changes nothing.
INSERT INTO feed_gap AS known (id, symbol, started, ended, cause, detail)
VALUES (
    %(id)s::uuid,
    %(symbol)s::text,
    to_timestamp(%(started)s::double precision),
    to_timestamp(%(ended)s::double precision),
    %(cause)s,
    %(detail)s::text
)
ON CONFLICT (id) DO UPDATE SET
    ended = excluded.ended,
    detail = excluded.detail,
    is_marked = FALSE
WHERE (known.ended, known.detail) IS DISTINCT FROM (excluded.ended, excluded.detail)
