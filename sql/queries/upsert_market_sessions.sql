-- Binds: calendar, and lists session, opens, closes: all sessions from the first to the last of them. The days of stocks
-- whose session has moved, has come or is no more are made anew.
WITH given AS (
    SELECT *
    FROM unnest(%(session)s::date[], %(opens)s::timestamptz[], %(closes)s::timestamptz[]) AS list (
        session, opens, closes
    )
),

gone AS (
    DELETE FROM market_session AS known
    WHERE
        known.calendar = %(calendar)s
        AND known.session BETWEEN (SELECT min(session) FROM given) AND (SELECT max(session) FROM given)
        AND NOT EXISTS (SELECT FROM given WHERE given.session = known.session)
    RETURNING session, opens, closes
),

changed AS (
    INSERT INTO market_session AS known (calendar, session, opens, closes)
    SELECT %(calendar)s, session, opens, closes FROM given
    ON CONFLICT (calendar, session) DO UPDATE SET
        opens = excluded.opens,
        closes = excluded.closes
    WHERE (known.opens, known.closes) IS DISTINCT FROM (excluded.opens, excluded.closes)
    RETURNING session, opens, closes
),

-- As they are now and, from before this statement, as they were.
moved AS (
    SELECT opens, closes FROM gone
    UNION
    SELECT opens, closes FROM changed
    UNION
    SELECT known.opens, known.closes
    FROM market_session AS known
    INNER JOIN changed ON known.session = changed.session
    WHERE known.calendar = %(calendar)s
)

INSERT INTO stale_bar (rollup, "timestamp", symbol)
SELECT 'ohlcv_1d', bar."timestamp", bar.symbol
FROM moved
INNER JOIN ohlcv_15m AS bar ON bar."timestamp" >= moved.opens AND bar."timestamp" < moved.closes
INNER JOIN instrument AS i ON bar.symbol = i.symbol
WHERE i.calendar = %(calendar)s AND i.asset_class = 'stock'
UNION
SELECT 'ohlcv_1d', day."timestamp", day.symbol
FROM moved
INNER JOIN ohlcv_1d AS day ON day."timestamp" = moved.opens
INNER JOIN instrument AS i ON day.symbol = i.symbol
WHERE i.calendar = %(calendar)s AND i.asset_class = 'stock'
