COPY rebuild_tick (symbol, price, event_time, volume, seq, conditions, received_at) FROM STDIN (FORMAT BINARY)
