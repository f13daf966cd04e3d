-- Where a rebuild gathers what the topic holds, before it takes the place of what is there. One rebuild at a time.
CREATE UNLOGGED TABLE IF NOT EXISTS rebuild_tick (LIKE tick_data);
CREATE UNLOGGED TABLE IF NOT EXISTS rebuild_bar (LIKE ohlcv_data INCLUDING DEFAULTS);
