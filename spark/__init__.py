"""The Spark streams: from the Kafka topic to tick_data and ohlcv_data."""
