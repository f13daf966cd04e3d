-- What is traded, and when.
CREATE TABLE IF NOT EXISTS instrument (
    symbol TEXT PRIMARY KEY,
    asset_class TEXT NOT NULL CHECK (asset_class IN ('stock', 'crypto', 'forex')),
    calendar TEXT NOT NULL,
    periods_per_year INTEGER NOT NULL
);

COMMENT ON TABLE instrument IS 'Every symbol, from its first trade on';
COMMENT ON COLUMN instrument.calendar IS 'Calendar of market_session';
COMMENT ON COLUMN instrument.periods_per_year IS 'Bars of one minute in a year of trading';

CREATE TABLE IF NOT EXISTS market_session (
    calendar TEXT NOT NULL,
    session DATE NOT NULL,
    opens TIMESTAMPTZ NOT NULL,
    closes TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (calendar, session)
);

CREATE INDEX IF NOT EXISTS market_session_closes ON market_session (calendar, closes);

COMMENT ON TABLE market_session IS 'Regular sessions from 1990 to a year ahead, from exchange_calendars';
COMMENT ON COLUMN market_session.calendar IS 'Name in exchange_calendars: XNYS, 24/5, 24/7';
COMMENT ON COLUMN market_session.closes IS 'The first moment after the session';

CREATE OR REPLACE FUNCTION is_open(of_calendar TEXT, at TIMESTAMPTZ)
RETURNS BOOLEAN
LANGUAGE sql STABLE
AS $$
    SELECT EXISTS (
        SELECT FROM market_session AS s
        WHERE s.calendar = of_calendar AND s.closes > at AND s.closes <= at + INTERVAL '24 hours' AND s.opens <= at
    )
$$;
