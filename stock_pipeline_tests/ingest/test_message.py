"""What the producer writes is Avro: the bytes are those of Apache's own library."""

from hypothesis import given
from hypothesis import strategies as st

from stock_pipeline.ingest.message import encode
from stock_pipeline.ingest.trade import EARLIEST_TIME
from stock_pipeline_tests import messages

TEXTS = st.text(max_size=64)
TRADES = st.fixed_dictionaries(
    {
        "s": TEXTS,
        "p": st.floats(),
        "t": st.integers(EARLIEST_TIME, 2**63 - 1),
        "v": st.floats(),
        "c": st.none() | st.lists(TEXTS, max_size=3),
    }
)


@given(st.lists(TRADES, max_size=70))
def test_a_message_is_what_apaches_library_writes(trades):
    assert encode(trades) == messages.encode(*trades)
