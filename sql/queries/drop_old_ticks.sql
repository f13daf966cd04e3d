-- Binds: days. Gives the new beginning of tick_data; null: nothing has been dropped yet.
SELECT nullif(drop_ticks(now() - make_interval(days => %(days)s)), '-infinity') AS kept_from
