"""Kafka records to arrays of trades: the binary encoding of ingest/trade.avsc, read by compiled code.

Source: Apache Avro specification, "Binary Encoding". A long is a zigzag number of up to ten bytes, seven bits in each.
A string is its length and its bytes. An array is blocks of a count and as many items, the last of count 0; a negative
count is followed by the size of its block in bytes. A union is the place of its branch, here 0 for null and 1 for an
array of strings.

Texts are told apart, not read: a trade has the place of its symbol among all that were met, and so with its conditions.
Numba keeps the compiled code beside this file, or in the user's cache where that cannot be written to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

Codes = npt.NDArray[np.int32]

LEAST_TRADE = 19
"""Fewest bytes of a trade: length of its symbol, price, time, volume, branch of its conditions."""


@dataclass(frozen=True)
class Decoded:
    """What a batch of records holds.

    Attributes:
        kind: for each record the place of its type in `kinds`; -1 where it could not be read, and has no trades.
        trades: for each record, how many trades it holds.
        record, index: for each trade the place of its record in the batch, and its own in the record.
        price, time, volume: for each trade; time in UNIX milliseconds.
        symbol, conditions: for each trade, places in `symbols` and `condition_lists`.
        kinds, symbols: as bytes, which may be no text.
        condition_lists: each as it was encoded, with its branch.
    """

    kind: Codes
    trades: Codes
    record: Codes
    index: Codes
    price: npt.NDArray[np.float64]
    time: npt.NDArray[np.int64]
    volume: npt.NDArray[np.float64]
    symbol: Codes
    conditions: Codes
    kinds: Sequence[bytes]
    symbols: Sequence[bytes]
    condition_lists: Sequence[bytes]


def decode(values: pa.BinaryArray) -> Decoded:
    """Read records; a null counts as one that cannot be read. What follows a whole record is not looked at."""
    _, ends, content = values.buffers()
    offsets = np.frombuffer(ends or bytes(4), np.int32)[values.offset :][: len(values) + 1]
    data = np.frombuffer(content or b"", np.uint8)
    *arrays, kinds, symbols, condition_lists = _read_records(data, offsets)
    texts = ([data[start:end].tobytes() for start, end in places] for places in (kinds, symbols, condition_lists))
    return Decoded(*arrays, *texts)


@njit(cache=True)
def _read_long(data, place, end):
    """A number, and the place after it, -1 where there is none."""
    value = np.uint64(0)
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = np.uint64(data[place])
        place += 1
        value |= (byte & np.uint64(127)) << np.uint64(shift)
        if byte < 128:
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), place
    return np.int64(0), np.int64(-1)


@njit(cache=True)
def _read_text(data, place, end):
    """The places of a text's begin and end; -1 and -1 where there is none."""
    length, place = _read_long(data, place, end)
    if place < 0 or length < 0 or length > end - place:
        return np.int64(-1), np.int64(-1)
    return place, place + length


@njit(cache=True)
def _read_count(data, place, end):
    """How many items a block has, 0 after the last, and the place of the first; -1 as place where it is damaged."""
    count, place = _read_long(data, place, end)
    if count < 0 and place >= 0:
        _, place = _read_long(data, place, end)
        count = -count
    return count, place


@njit(cache=True)
def _skip_conditions(data, place, end):
    """The place after the conditions of a trade; -1 where they are damaged."""
    branch, place = _read_long(data, place, end)
    if place < 0 or branch == 0:
        return place
    if branch != 1:
        return np.int64(-1)
    while True:
        count, place = _read_count(data, place, end)
        if place < 0 or count == 0:
            return place
        # A text has at least a byte, so that a false count ends at the record's end.
        while count != 0:
            _, place = _read_text(data, place, end)
            if place < 0:
                return place
            count -= 1


@njit(cache=True)
def _read_double(data, place):
    bits = np.uint64(0)
    for byte in range(8):
        bits |= np.uint64(data[place + byte]) << np.uint64(8 * byte)
    return bits


@njit(cache=True)
def _find(data, begin, end, slots, places, known):
    """The number of a text among those met; `known` where it is new, and then it is put there."""
    # FNV-1a, 32 bits.
    hashed = np.uint32(2166136261)
    for place in range(begin, end):
        hashed = (hashed ^ np.uint32(data[place])) * np.uint32(16777619)
    slot = np.int64(hashed) & (len(slots) - 1)
    while slots[slot] >= 0:
        start, stop = places[slots[slot]]
        if stop - start == end - begin:
            same = 0
            while same < stop - start and data[start + same] == data[begin + same]:
                same += 1
            if same == stop - start:
                return slots[slot]
        slot = (slot + 1) & (len(slots) - 1)
    slots[slot] = known
    places[known] = begin, end
    return known


@njit(cache=True)
def _empty_slots(most):
    """Slots for so many texts, at most half of them taken."""
    size = 2
    while size < 2 * most:
        size *= 2
    return np.full(size, -1, np.int32)


@njit(cache=True)
def _read_records(data, offsets):
    """The arrays of Decoded, and where the texts begin and end."""
    records = len(offsets) - 1
    most = (offsets[-1] - offsets[0]) // LEAST_TRADE
    kind, trades = np.full(records, -1, np.int32), np.zeros(records, np.int32)
    record, index = np.empty(most, np.int32), np.empty(most, np.int32)
    price, time, volume = np.empty(most, np.uint64), np.empty(most, np.int64), np.empty(most, np.uint64)
    symbol, conditions = np.empty(most, np.int32), np.empty(most, np.int32)
    kind_slots, symbol_slots, condition_slots = _empty_slots(records), _empty_slots(most), _empty_slots(most)
    kind_places = np.empty((records, 2), np.int64)
    symbol_places, condition_places = np.empty((most, 2), np.int64), np.empty((most, 2), np.int64)
    kinds = symbols = condition_lists = found = 0
    for number in range(records):
        end, first = np.int64(offsets[number + 1]), found
        kind_begin, place = _read_text(data, np.int64(offsets[number]), end)
        kind_end = place
        while place >= 0:
            count, place = _read_count(data, place, end)
            if place < 0 or count == 0:
                break
            while count != 0 and place >= 0:
                count -= 1
                begin, place = _read_text(data, place, end)
                if place < 0 or end - place < LEAST_TRADE - 1:
                    place = -1
                    break
                price[found] = _read_double(data, place)
                time[found], after = _read_long(data, place + 8, end)
                if after < 0 or end - after < 9:
                    place = -1
                    break
                volume[found] = _read_double(data, after)
                stop, place = place, _skip_conditions(data, after + 8, end)
                if place < 0:
                    break
                symbol[found] = _find(data, begin, stop, symbol_slots, symbol_places, symbols)
                symbols = max(symbols, symbol[found] + 1)
                conditions[found] = _find(data, after + 8, place, condition_slots, condition_places, condition_lists)
                condition_lists = max(condition_lists, conditions[found] + 1)
                record[found], index[found] = number, found - first
                found += 1
        if place < 0:
            found = first
            continue
        trades[number] = found - first
        kind[number] = _find(data, kind_begin, kind_end, kind_slots, kind_places, kinds)
        kinds = max(kinds, kind[number] + 1)
    return (
        kind,
        trades,
        record[:found],
        index[:found],
        price[:found].view(np.float64),
        time[:found],
        volume[:found].view(np.float64),
        symbol[:found],
        conditions[:found],
        kind_places[:kinds],
        symbol_places[:symbols],
        condition_places[:condition_lists],
    )
