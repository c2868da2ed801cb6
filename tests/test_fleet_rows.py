"""Each row is taken once, whatever overlaps, and what is asked for again covers what is missing."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from agent.protocol import framing
from agent.protocol.messages import Control, Datatype, EnergySource, Settled, Usage
from fleet.answer import Output, Rows, joined
from fleet.confirmations import Confirmations
from fleet.coverage import Coverage
from fleet.ids import sortable_id

RANGES = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda pair: pair[0] < pair[1]), max_size=20
)


@given(RANGES)
def test_of_overlapping_ranges_each_row_is_taken_once(ranges: list[tuple[int, int]]) -> None:
    coverage = Coverage(3, 25)
    taken = [row for one in ranges for part in coverage.take(*one) for row in range(*part)]
    wanted = {row for one in ranges for row in range(*one)} & set(range(3, 25))
    assert sorted(taken) == sorted(wanted)
    missing = [row for part in coverage.missing for row in range(*part)]
    assert missing == sorted(set(range(3, 25)) - wanted)
    assert coverage.rows_done == len(wanted)
    if missing:
        assert coverage.hull == (missing[0], missing[-1] + 1)


def test_a_part_of_the_rows_has_its_bytes_and_its_share_of_the_cost() -> None:
    outputs = {"y": Output(Datatype.INT16, (2,), bytes(range(16)))}
    usage = Usage(4.0, 2.0, 8.0, EnergySource.COUNTER, None, "cpu", "cpu0")
    part = Rows(10, 14, 1, outputs, usage).cut(11, 12)
    assert (part.begin, part.end) == (11, 12)
    assert part.outputs["y"].data == bytes(range(4, 8))
    assert (part.usage.wall_s, part.usage.device_s, part.usage.energy_j) == (1.0, 0.5, 2.0)
    assert part.usage.idle_j is None, "no meter stays no meter"


def test_pieces_are_joined_by_their_rows_and_not_by_their_arrival() -> None:
    usage = Usage(1, 1, None, EnergySource.NONE, None, "cpu", "cpu0")
    pieces = [
        Rows(begin, begin + 1, 1, {"y": Output(Datatype.UINT8, (), bytes([begin]))}, usage)
        for begin in (2, 0, 1)
    ]
    assert joined(pieces)["y"].data == bytes([0, 1, 2])


@given(
    st.lists(st.tuples(st.text("ab-", min_size=1, max_size=64), *[st.integers(0, 2**31)] * 3), max_size=60)
)
def test_confirmations_fit_their_message_and_none_is_lost(results: list[tuple[str, int, int, int]]) -> None:
    confirmations = Confirmations(limit_bytes=1000)
    for result in results:
        confirmations.add(result)
    batches = list(confirmations.take())
    assert [result for batch in batches for result in batch] == results
    at = dt.datetime(2026, 11, 22, 1, 2, 3, 456789, tzinfo=dt.UTC)
    said: list[Control] = [Settled("v" * 64, at, batch) for batch in batches]
    assert all(len(framing.encode(one)) <= 1000 for one in said)
    assert not confirmations


def test_a_full_confirmation_has_ten_thousand_results() -> None:
    confirmations = Confirmations(limit_bytes=10**9)
    for number in range(25_000):
        confirmations.add(("id", 1, number, number + 1))
    assert [len(batch) for batch in confirmations.take()] == [10_000, 10_000, 5_000]


@given(st.integers(0, 2**80 - 1), st.integers(0, 2**80 - 1), st.integers(1, 10**9))
def test_later_ids_are_larger(first: int, second: int, later_ms: int) -> None:
    at = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
    assert sortable_id(at, first) < sortable_id(at + dt.timedelta(milliseconds=later_ms), second)


def test_an_id_is_the_ulid_of_its_time() -> None:
    # the example of the ULID specification: 01ARYZ6S41 is 1469918176385 ms
    at = dt.datetime.fromtimestamp(1469918176385 / 1000, dt.UTC)
    assert sortable_id(at, 0) == "01ARYZ6S41" + "0" * 16
