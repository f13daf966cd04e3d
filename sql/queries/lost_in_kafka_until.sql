-- Until when Kafka may have held records that it holds no longer, and that a stream has met the lack of; null: there are none.
SELECT max(ended)
FROM feed_gap
WHERE cause = 'expired in Kafka'
