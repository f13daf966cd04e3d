-- Binds: days. Gives the new beginning of tick_data; minus infinity: nothing has been dropped yet.
SELECT drop_ticks(now() - make_interval(days => %(days)s)) AS kept_from
