-- Binds: begin, end, symbol (null: all), and lists partitions, ends. Ticks whose records lie below the ends.
DELETE FROM tick_data
USING unnest(%(partitions)s::bigint[], %(ends)s::bigint[]) AS place (partition, next_offset)
WHERE
    tick_data.event_time >= %(begin)s
    AND tick_data.event_time < %(end)s
    AND (%(symbol)s::text IS NULL OR tick_data.symbol = %(symbol)s)
    AND kafka_partition(tick_data.seq) = place.partition
    AND kafka_offset(tick_data.seq) < place.next_offset
