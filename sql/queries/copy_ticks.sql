COPY tick_data (symbol, price, event_time, volume, seq, conditions, received_at) FROM STDIN (FORMAT BINARY)
