-- Binds: lists symbol, asset_class, calendar, periods_per_year.
INSERT INTO instrument (symbol, asset_class, calendar, periods_per_year)
SELECT given.symbol, given.asset_class, given.calendar, given.periods_per_year
FROM unnest(%(symbol)s::text[], %(asset_class)s::text[], %(calendar)s::text[], %(periods_per_year)s::integer[])
    AS given (symbol, asset_class, calendar, periods_per_year)
ORDER BY given.symbol
ON CONFLICT (symbol) DO NOTHING
