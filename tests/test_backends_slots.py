"""The shared memory of a worker: slots never overlap, whatever order they come and go in."""

import mmap
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.kernel import Tensor
from backends.slots import Arena, ArenaFull, layout

ARENA_BYTES = 64 * 64


@pytest.fixture
def arena() -> Arena:
    made = Arena(ARENA_BYTES)
    made.close_fd()
    made.retire()
    return made


@given(st.lists(st.integers(1, 12), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_leases_never_overlap_and_everything_comes_back(blocks: list[int], order: random.Random) -> None:
    arena = Arena(ARENA_BYTES)
    arena.close_fd()
    leased: dict[int, int] = {}
    for block in blocks:
        size = 64 * block
        try:
            offset = arena.lease(size)
        except ArenaFull as full:
            assert full.free_bytes < size  # noqa: PT017 - the exception is an expected answer here
            if leased:
                given_back = order.choice(sorted(leased))
                del leased[given_back]
                arena.give_back(given_back)
            continue
        assert 0 <= offset <= ARENA_BYTES - size
        assert all(offset + size <= other or other + leased[other] <= offset for other in leased)
        leased[offset] = size
    for offset in order.sample(sorted(leased), len(leased)):
        arena.give_back(offset)
    assert arena.lease(ARENA_BYTES) == 0
    arena.give_back(0)
    arena.retire()


def test_tensors_lie_side_by_side_on_cache_lines() -> None:
    tensors = (
        Tensor("image", "UINT8", (3, 5, 5)),
        Tensor("scale", "FP32", (), shared=True),
        Tensor("label", "INT64", (10,)),
    )
    ranges, size = layout(tensors, rows=2)
    assert ranges == [range(150), range(192, 196), range(256, 416)]
    assert size == 448


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (Tensor("words", "BYTES", (3,)), "'BYTES' has no fixed size"),
        (Tensor("boxes", "FP32", (0, 4)), "has a dimension below 1"),
        (Tensor("boxes", "FP32", (-1, 4)), "has a dimension below 1"),
    ],
)
def test_a_tensor_that_cannot_lie_in_a_slot_is_named(tensor: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=f"{tensor.name}.*{says}"):
        layout([tensor], rows=1)


def test_nobody_can_shrink_the_arena_under_the_supervisors_feet() -> None:
    arena = Arena(ARENA_BYTES)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 0)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.fd, 2 * ARENA_BYTES)
    arena.close_fd()
    arena.retire()


def test_memory_that_nobody_has_written_costs_nothing() -> None:
    arena = Arena(1 << 30)
    offset = arena.lease(1 << 20)
    with arena.view(offset, 1 << 20) as view:
        view[0] = 1
        used_bytes = os.fstat(arena.fd).st_blocks * 512
    assert used_bytes <= 16 * mmap.PAGESIZE
    arena.close_fd()
    arena.give_back(offset)
    arena.retire()
