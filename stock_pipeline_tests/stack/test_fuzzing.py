"""100,000 mutated frames and 100,000 mutated records: nothing stops, and what becomes of each adds up."""

import json
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stock_pipeline_tests.conftest import Stack, eventually
from stock_pipeline_tests.feed import Feed
from stock_pipeline_tests.messages import decode, encode, trade
from stock_pipeline_tests.stack.test_producer import counts, start_producer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

MUTANTS, EXAMPLES = 100_000, 2_000

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([10**400, "FUZZ:A' OR 1=1; --", "\x00", "\ud800", "\ufffe", [], {}, [1], ["1", "12"], [None]]),
)


def near(valid: dict) -> st.SearchStrategy[dict]:
    """The valid object with some of its values replaced, missing or too many."""
    changes = st.dictionaries(st.sampled_from([*valid, "x", "data", "type"]), scalars, max_size=2)
    return st.builds(
        lambda change, missing: {k: v for k, v in {**valid, **change}.items() if k not in missing},
        changes,
        st.sets(st.sampled_from([*valid]), max_size=1),
    )


def examples(strategy: st.SearchStrategy[object]) -> list[object]:
    """Some of what hypothesis finds worth a try; the same in every run."""
    found: list[object] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(example: object) -> None:
        found.append(example)

    keep()
    return found


def edited(raw: bytes, chance: random.Random) -> bytes:
    """With some bytes replaced, inserted or cut out."""
    for _ in range(chance.randint(1, 3)):
        at, cut, put = chance.randint(0, len(raw)), chance.randint(0, 3), chance.randbytes(chance.randint(0, 3))
        raw = raw[:at] + put + raw[at + cut :]
    return raw


def outcomes(raw: bytes) -> int:
    """How many trades and dead letters a frame has to become; pings and errors become none."""
    try:
        frame = json.loads(raw)
    except (ValueError, RecursionError):
        return 1
    if not isinstance(frame, dict) or frame.get("type") not in ("ping", "error", "trade"):
        return 1
    if frame["type"] != "trade":
        return 0
    return len(frame["data"]) if isinstance(frame.get("data"), list) else 1


def read(stack: Stack, topic: str, begin: dict[int, int]) -> list:
    """All records of a topic from these offsets on."""
    consumer = Consumer({"bootstrap.servers": stack.kafka, "group.id": "tests", "enable.auto.commit": False})
    missing = sum(end - begin[partition] for partition, end in ends(consumer, topic, begin).items())
    consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in begin.items()])
    found = []
    while len(found) < missing:
        found += consumer.consume(1_000, timeout=10)
    consumer.close()
    return found


def ends(consumer: Consumer, topic: str, partitions) -> dict[int, int]:
    return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in partitions}


def mark(stack: Stack) -> Callable[[], tuple[list, list]]:
    """Remember where the topics end; the result gives the records that came since: of trades, of dead letters."""
    topics = {"stock-ticks": range(4), "stock-ticks-dead-letter": range(1)}
    consumer = Consumer({"bootstrap.servers": stack.kafka, "group.id": "tests"})
    begin = {topic: ends(consumer, topic, partitions) for topic, partitions in topics.items()}
    consumer.close()
    return lambda: tuple(read(stack, topic, offsets) for topic, offsets in begin.items())


def stored(stack: Stack, records) -> Counter[tuple[int, int]]:
    """Rows of tick_data for each (partition, offset)."""
    wanted = {(record.partition(), record.offset()) for record in records}
    rows = stack.query("SELECT seq >> 12 & 1023, seq >> 22, count(*) FROM tick_data GROUP BY 1, 2")
    return Counter({(p, o): count for p, o, count in rows if (p, o) in wanted})


def test_mutated_frames(stack: Stack, feed: Feed):
    now = time.time_ns() // 1_000_000
    good = trade("FUZZ:A", t=now)
    chance = random.Random(7)
    elements = [good, *examples(st.one_of(near(good), near(good), scalars))]
    whole = examples(
        st.one_of(
            near({"type": "trade", "data": [good]}),
            near({"type": "error", "msg": "Subscribing to too many symbols: FUZZ:B"}),
            scalars,
        )
    )
    mutants = []
    for _ in range(MUTANTS):
        frame = {"type": "trade", "data": chance.choices(elements, k=chance.randint(0, 3))}
        raw = json.dumps(chance.choice([frame, frame, chance.choice(whole)])).encode()
        mutants.append(edited(raw, chance) if chance.random() < 0.4 else raw)
    new_records = mark(stack)
    producer = start_producer(stack, feed, SYMBOLS="FUZZ:A,FUZZ:B")
    # Each error of the feed is a line of its log: more than a pipe holds.
    threading.Thread(target=producer.stdout.read, daemon=True).start()
    eventually(lambda: len(feed.received) == 2, 30)
    for number, raw in enumerate(mutants):
        feed.connections[-1].send(raw, text=number % 2 == 0)
    eventually(lambda: counts(stack).get("frames") == MUTANTS, 300)
    producer.terminate()
    assert producer.wait(timeout=60) == 0
    assert len(feed.connections) == 1
    expected, found = sum(map(outcomes, mutants)), counts(stack)
    print({**found})
    assert found["trades"] + found["dead_letters"] == expected
    records, letters = new_records()
    assert len(letters) == found["dead_letters"]
    assert sum(len(decode(record.value())["data"]) for record in records) == found["trades"]

    stack.catch_up()
    # What the producer took for a trade is one to the streams, too.
    assert sum(stored(stack, records).values()) == found["trades"]
    assert len(new_records()[1]) == found["dead_letters"]
    assert stack.command("reconcile").returncode == 0


def test_mutated_records(stack: Stack):
    now = time.time_ns() // 1_000_000
    goods = [
        encode(*[trade("FUZZ:C", t=now, v=number + 1.0, c=c)] * (number + 1))
        for number, c in enumerate([None, ["1", "12"], [], ["x" * 40]])
    ]
    chance = random.Random(7)
    mutants = [edited(chance.choice(goods), chance) for _ in range(MUTANTS)]
    new_records = mark(stack)
    for partition in range(4):
        stack.send(*mutants[partition::4], partition=partition)
    stack.catch_up()
    records, letters = new_records()
    assert len(records) == MUTANTS
    rows = stored(stack, records)
    whole, parts = Counter[tuple[int, int]](), defaultdict[tuple[int, int], list[int]](list)
    for letter in letters:
        headers = {name: value.decode() for name, value in letter.headers()}
        place = int(headers["partition"]), int(headers["offset"])
        if "index" in headers:
            parts[place].append(int(headers["index"]))
        else:
            whole[place] += 1
    for record in records:
        place = record.partition(), record.offset()
        try:
            data = decode(record.value())["data"]
        except Exception:  # noqa: BLE001 - Apache's library raises whatever it meets
            # Where it gives up, the stream has at least one element, or all of it, as a dead letter.
            assert whole[place] == 1 or parts[place], record.value()
            continue
        if whole[place]:
            assert (whole[place], rows[place], parts[place]) == (1, 0, []), record.value()
        else:
            assert rows[place] + len(set(parts[place])) == len(data), record.value()
        assert len(set(parts[place])) == len(parts[place])
    print(f"{sum(rows.values())} trades, {sum(whole.values())} records and {sum(map(len, parts.values()))} elements")
    # Their times are spread over decades.
    assert stack.command("reconcile").returncode == 0
