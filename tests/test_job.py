import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_fleet import task

from agent.job import Chunk, Job, Origin, Spending, merged, packed, unpacked, usage
from agent.protocol.messages import EnergySource
from backends.kernel import Tensor

ROW_BYTES = 4


def _spent(rows: int) -> Spending:
    return Spending(rows, rows, 2.0 * rows, EnergySource.COUNTER, idle_j=1.0 * rows, pack_j=0.0)


def chunk(begin: int, end: int) -> Chunk:
    """Rows whose bytes say which row they are; each costs one second and two joules."""
    rows = b"".join(row.to_bytes(ROW_BYTES, "little") for row in range(begin, end))
    return Chunk(begin, end, (rows,), _spent(end - begin))


def job(rows: int) -> Job:
    message, tail = task("night-1", count=rows)
    return Job(message, [memoryview(tail)], (0, rows), rows, [(0, rows)], lease_end_ns=0, arrival=0)


ranges = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=12)


@given(ranges, st.integers(1, 10))
def test_merging_keeps_every_row_its_bytes_and_its_cost(
    gaps_and_sizes: list[tuple[int, int]], most: int
) -> None:
    chunks, at = [], 0
    for gap, size in gaps_and_sizes:
        chunks.append(chunk(at + gap, at + gap + size))
        at += gap + size
    wholes = list(merged(chunks, ROW_BYTES, most * ROW_BYTES))
    assert [row for whole in wholes for row in range(whole.begin, whole.end)] == [
        row for piece in chunks for row in range(piece.begin, piece.end)
    ]
    for whole in wholes:
        assert whole.outputs == chunk(whole.begin, whole.end).outputs
        assert whole.end - whole.begin <= most
    assert sum(whole.spending.energy_j or 0 for whole in wholes) == pytest.approx(
        sum(piece.spending.energy_j or 0 for piece in chunks)
    )


def test_neighbours_are_joined() -> None:
    (whole,) = merged([chunk(0, 2), chunk(2, 3), chunk(3, 8)], ROW_BYTES, 1000)
    assert (whole.begin, whole.end) == (0, 8)


def test_a_row_without_a_meter_leaves_its_sum_without() -> None:
    blind = Chunk(0, 1, (b"abcd",), Spending(1.0, 1.0))
    (whole,) = merged([blind, chunk(1, 2)], ROW_BYTES, 1000)
    assert (whole.spending.energy_j, whole.spending.idle_j) == (None, None)
    assert whole.spending.source is EnergySource.NONE


def test_rows_too_few_for_the_meter_are_in_the_figure_of_those_after_them() -> None:
    few = Chunk(0, 1, (b"abcd",), Spending(1.0, 1.0, None, EnergySource.COUNTER))
    (whole,) = merged([few, chunk(1, 2)], ROW_BYTES, 1000)
    assert (whole.spending.energy_j, whole.spending.idle_j) == (2.0, 1.0)
    assert whole.spending.source is EnergySource.COUNTER
    (alone,) = merged([few], ROW_BYTES, 1000)
    assert (alone.spending.energy_j, alone.spending.source) == (None, EnergySource.COUNTER)


def test_a_sum_is_worth_what_its_worst_part_is_worth() -> None:
    counted, modelled = chunk(0, 1), Chunk(1, 2, (b"abcd",), Spending(1.0, 1.0, 3.0, EnergySource.MODEL))
    (whole,) = merged([counted, modelled], ROW_BYTES, 1000)
    assert (whole.spending.energy_j, whole.spending.source) == (5.0, EnergySource.MODEL)
    assert whole.spending.idle_j is None  # a model knows none


def test_what_the_pack_gave_did_not_come_from_the_grid() -> None:
    told = usage(Spending(1.0, 1.0, 5.0, EnergySource.COUNTER, 1.0, 2.0), Origin("cpu", "cpu", ()))
    assert (told.energy_j, told.grid_j, told.pack_j) == (5.0, 3.0, 2.0)


def test_a_task_with_rows_that_nothing_measured_has_no_joules() -> None:
    owed = job(3)
    owed.keep(chunk(0, 1))
    assert owed.energy_j == 2.0
    owed.keep(Chunk(1, 2, (b"abcd",), Spending(1.0, 1.0)))
    owed.keep(chunk(2, 3))
    assert owed.energy_j is None


def test_rows_are_kept_in_order_and_once() -> None:
    owed = job(5)
    owed.keep(chunk(0, 2))
    assert (owed.done, owed.left, owed.missing) == (2, 3, [(2, 5)])
    for wrong in (chunk(0, 2), chunk(3, 4), chunk(2, 6)):
        with pytest.raises(ValueError, match="are not next"):
            owed.keep(wrong)
    owed.keep(chunk(2, 5))
    assert (owed.done, owed.left, owed.missing) == (5, 0, [])


def test_priority_then_deadline_then_arrival_decides() -> None:
    first, urgent, later = job(1), job(1), job(1)
    urgent.task.priority = 5
    later.arrival = 7
    assert sorted([later, first, urgent]) == [urgent, first, later]


def test_a_lease_is_only_ever_prolonged() -> None:
    owed = job(1)
    owed.lease_end_ns = 60 * 10**9
    owed.renew(10**9)
    owed.renew(5)
    assert owed.lease_end_ns == 10**9 + 60 * 10**9


def test_committed_rows_survive_the_store() -> None:
    origin = Origin("null", "null", (Tensor("x", "UINT8", (4,)),))
    outputs, account = packed(chunk(3, 5), origin)
    assert unpacked(3, 5, outputs, account) == (chunk(3, 5), origin)


def test_a_lease_that_has_run_out_is_renewed_by_nothing() -> None:
    owed = job(1)
    owed.lease_end_ns = 60 * 10**9
    owed.renew(60 * 10**9 + 1)
    assert owed.lease_end_ns == 60 * 10**9
