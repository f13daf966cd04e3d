-- Bars of a symbol for a chart: from the one that holds `begins` to `ends`, of those the newest 10,000, oldest first.
CREATE OR REPLACE FUNCTION bars(every TEXT, of_symbol TEXT, begins TIMESTAMPTZ, ends TIMESTAMPTZ)
RETURNS SETOF ohlcv_data
LANGUAGE plpgsql STABLE ROWS 1000
SET search_path = public, pg_temp
AS $$
DECLARE
    source TEXT;
    width INTERVAL;
BEGIN
    SELECT known.source, known.width
    INTO source, width
    FROM (
        VALUES
        ('1m', 'ohlcv_data', INTERVAL '1 minute'),
        ('5m', 'ohlcv_5m', INTERVAL '5 minutes'),
        ('15m', 'ohlcv_15m', INTERVAL '15 minutes'),
        ('1h', 'ohlcv_1h', INTERVAL '1 hour'),
        ('1d', 'ohlcv_1d', INTERVAL '24 hours')
    ) AS known (every, source, width)
    WHERE known.every = bars.every;
    IF source IS NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = format(
            'no bars of %s: choose 1m, 5m, 15m, 1h or 1d', coalesce(every, 'null')
        );
    END IF;
    -- Planned for the range at hand, so that only its chunks are opened.
    RETURN QUERY EXECUTE format(
        'SELECT * FROM ('
        '    SELECT * FROM %I AS bar'
        '    WHERE bar.symbol = $1 AND bar."timestamp" > $2 AND bar."timestamp" <= $3'
        '    ORDER BY bar."timestamp" DESC LIMIT 10000'
        ') AS newest ORDER BY newest."timestamp"',
        source
    ) USING of_symbol, begins - width, ends;
END
$$;
