-- Binds: begin, end, symbol (null: all), and lists partitions, firsts. Ticks of the range whose records Kafka no longer
-- holds.
SELECT count(*)
FROM tick_data
INNER JOIN unnest(%(partitions)s::bigint[], %(firsts)s::bigint[]) AS place (partition, first_offset)
    ON kafka_partition(tick_data.seq) = place.partition
WHERE
    tick_data.event_time >= %(begin)s
    AND tick_data.event_time < %(end)s
    AND (%(symbol)s::text IS NULL OR tick_data.symbol = %(symbol)s)
    AND kafka_offset(tick_data.seq) < place.first_offset
