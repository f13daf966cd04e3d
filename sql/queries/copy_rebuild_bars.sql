COPY rebuild_bar ("timestamp", symbol, open, high, low, close, volume, trades, ticks, vwap) FROM STDIN (FORMAT BINARY)
