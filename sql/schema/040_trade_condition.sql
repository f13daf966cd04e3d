-- What a trade's condition codes let it do to a bar. A trade may do what all of its codes allow; a code that is not
-- here allows everything. Codes and names are Finnhub's (its list of trade conditions); the rules are those of the
-- consolidated tapes, of which two publish a matrix of sale conditions:
--   CTS: CTA Plan, Consolidated Tape System Output Multicast Line Interface Specification (tapes A and B)
--   UTP: UTP Plan, UTP Data Feed Services Specification (tape C)
CREATE TABLE IF NOT EXISTS trade_condition (
    code SMALLINT PRIMARY KEY,
    name TEXT NOT NULL,
    updates_high_low BOOLEAN NOT NULL,
    updates_last BOOLEAN NOT NULL,
    updates_volume BOOLEAN NOT NULL,
    session TEXT NOT NULL CHECK (session IN ('any', 'extended')),
    source TEXT NOT NULL,
    note TEXT,
    -- Else a close could lie above the high.
    CHECK (updates_high_low OR NOT updates_last)
);

COMMENT ON TABLE trade_condition IS 'What a trade with a condition code may do to a bar';
COMMENT ON COLUMN trade_condition.code IS 'Finnhub''s code';
COMMENT ON COLUMN trade_condition.updates_high_low IS 'May set high and low';
COMMENT ON COLUMN trade_condition.updates_last IS 'May set open and close';
COMMENT ON COLUMN trade_condition.updates_volume IS 'Counts in volume, trades and vwap';
COMMENT ON COLUMN trade_condition.session IS 'extended: sets prices only outside the regular session; any: always';
COMMENT ON COLUMN trade_condition.source IS 'Tape and its sale condition that the rule comes from';

INSERT INTO trade_condition (code, name, updates_high_low, updates_last, updates_volume, session, source, note)
VALUES
(1, 'Regular', TRUE, TRUE, TRUE, 'any', 'CTS, UTP @', NULL),
(2, 'Acquisition', TRUE, TRUE, TRUE, 'any', 'UTP A', NULL),
(3, 'Average price', FALSE, FALSE, TRUE, 'any', 'CTS B, UTP W', NULL),
(4, 'Bunched', TRUE, TRUE, TRUE, 'any', 'UTP B', NULL),
(5, 'Cash', FALSE, FALSE, TRUE, 'any', 'CTS, UTP C', NULL),
(6, 'Distribution', TRUE, TRUE, TRUE, 'any', 'UTP D', NULL),
(7, 'Automatic execution', TRUE, TRUE, TRUE, 'any', 'CTS E', NULL),
(8, 'Intermarket sweep', TRUE, TRUE, TRUE, 'any', 'CTS, UTP F', NULL),
(9, 'Bunched sold', TRUE, FALSE, TRUE, 'any', 'UTP G', 'last only as the only trade of the day: never here'),
(10, 'Price variation', FALSE, FALSE, TRUE, 'any', 'CTS, UTP H', NULL),
(11, 'CAP election', FALSE, FALSE, TRUE, 'any', 'CTS I', 'retired; in 2013 its letter went to odd lots'),
(12, 'Odd lot', FALSE, FALSE, TRUE, 'any', 'CTS, UTP I', NULL),
(13, 'Rule 127', TRUE, TRUE, TRUE, 'any', 'CTS K', NULL),
(14, 'Rule 155', TRUE, TRUE, TRUE, 'any', 'CTS, UTP K', NULL),
(15, 'Sold last', TRUE, TRUE, TRUE, 'any', 'CTS, UTP L', NULL),
(16, 'Market center official close', FALSE, FALSE, FALSE, 'any', 'CTS, UTP M', 'repeats a print that came before'),
(17, 'Next day', FALSE, FALSE, TRUE, 'any', 'CTS, UTP N', NULL),
(18, 'Market center opening trade', TRUE, FALSE, TRUE, 'any', 'CTS O', 'last only as the first trade of the day: never here'),
(19, 'Opening prints', TRUE, TRUE, TRUE, 'any', 'UTP O', NULL),
(20, 'Market center official open', FALSE, FALSE, FALSE, 'any', 'CTS, UTP Q', 'repeats a print that came before'),
(21, 'Prior reference price', TRUE, FALSE, TRUE, 'any', 'CTS, UTP P', 'last only as the only trade of the day: never here'),
(22, 'Seller', FALSE, FALSE, TRUE, 'any', 'CTS, UTP R', NULL),
(23, 'Split', TRUE, TRUE, TRUE, 'any', 'UTP S', NULL),
(24, 'Form T', TRUE, TRUE, TRUE, 'extended', 'CTS, UTP T', 'the tapes count volume only; outside the session there is nothing else'),
(25, 'Extended hours, sold out of sequence', FALSE, FALSE, TRUE, 'any', 'CTS, UTP U', NULL),
(26, 'Contingent', FALSE, FALSE, TRUE, 'any', 'CTS, UTP V', NULL),
(27, 'Stock option', FALSE, FALSE, TRUE, 'any', 'UTP V', 'since July 2015 its letter means contingent (UTP Vendor Alert 2015-4)'),
(28, 'Cross', TRUE, TRUE, TRUE, 'any', 'CTS, UTP X', NULL),
(29, 'Yellow flag', TRUE, TRUE, TRUE, 'any', 'UTP Y', NULL),
(30, 'Sold out of sequence', TRUE, FALSE, TRUE, 'any', 'CTS, UTP Z', 'last only as the only trade of the day: never here'),
(31, 'Stopped stock', TRUE, TRUE, TRUE, 'any', 'UTP 1', NULL),
(32, 'Derivatively priced', TRUE, FALSE, TRUE, 'any', 'CTS, UTP 4', 'last only as the only trade of the day: never here'),
(33, 'Market center reopening trade', TRUE, TRUE, TRUE, 'any', 'CTS 5', NULL),
(34, 'Reopening prints', TRUE, TRUE, TRUE, 'any', 'UTP 5', NULL),
(35, 'Market center closing trade', TRUE, TRUE, TRUE, 'any', 'CTS 6', NULL),
(36, 'Closing prints', TRUE, TRUE, TRUE, 'any', 'UTP 6', NULL),
(37, 'Qualified contingent', FALSE, FALSE, TRUE, 'any', 'CTS, UTP 7', NULL),
(38, 'Placeholder for 611 exempt', TRUE, TRUE, TRUE, 'any', 'UTP 8', 'reserved: says nothing of the price'),
(39, 'Corrected consolidated close', FALSE, FALSE, FALSE, 'any', 'CTS, UTP 9', NULL),
(40, 'Opened', TRUE, FALSE, TRUE, 'any', 'CTS O', 'retired; an opening trade that is reported late, as 18'),
(41, 'Trade-through exempt', TRUE, TRUE, TRUE, 'any', 'CTS, trade-through exempt indicator', 'why another price was not protected: an ordinary trade')
ON CONFLICT (code) DO UPDATE SET
    name = excluded.name,
    updates_high_low = excluded.updates_high_low,
    updates_last = excluded.updates_last,
    updates_volume = excluded.updates_volume,
    session = excluded.session,
    source = excluded.source,
    note = excluded.note;
