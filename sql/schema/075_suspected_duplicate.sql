-- Trades that may be there twice: their frame has the content of one that came before the connection was renewed.
-- They stay in tick_data and in the bars, since equal trades are possible; equal trades of one frame are never listed.
CREATE TABLE IF NOT EXISTS suspected_duplicate (
    symbol TEXT NOT NULL,
    event_time TIMESTAMPTZ NOT NULL,
    seq BIGINT NOT NULL,
    original_seq BIGINT NOT NULL,
    gap_id UUID NOT NULL REFERENCES feed_gap (id),
    found_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (symbol, event_time, seq)
);

COMMENT ON COLUMN suspected_duplicate.seq IS 'Place of the later trade; with symbol and event_time the key of tick_data';
COMMENT ON COLUMN suspected_duplicate.original_seq IS 'Place of the trade before the outage that it equals';
COMMENT ON COLUMN suspected_duplicate.gap_id IS 'The outage between the two';
