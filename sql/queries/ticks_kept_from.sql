-- From when on ticks are kept; null: none has been dropped.
SELECT dropped_before
FROM tick_retention
