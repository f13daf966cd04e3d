-- Binds: calendar, and lists session, opens, closes.
INSERT INTO market_session AS known (calendar, session, opens, closes)
SELECT %(calendar)s, given.session, given.opens, given.closes
FROM unnest(%(session)s::date[], %(opens)s::timestamptz[], %(closes)s::timestamptz[]) AS given (session, opens, closes)
ON CONFLICT (calendar, session) DO UPDATE SET
    opens = excluded.opens,
    closes = excluded.closes
WHERE (known.opens, known.closes) IS DISTINCT FROM (excluded.opens, excluded.closes)
