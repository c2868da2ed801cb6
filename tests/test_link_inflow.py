"""However a broker's bytes come, in crumbs or in heaps, they are the same packets."""

import socket
from collections.abc import Iterator

import pytest
from fake_broker import varint
from hypothesis import given
from hypothesis import strategies as st

from agent.link.inflow import READ_BYTES, Inflow, Oversize

MOST_BYTES = 100_000


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


def packet(head: int, body: bytes) -> bytes:
    return bytes([head]) + varint(len(body)) + body


def taken(inflow: Inflow) -> list[tuple[int, bytes]]:
    found = []
    while (each := inflow.next()) is not None:
        found.append((each.head, each.data[each.start :]))
    return found


@given(
    sizes=st.lists(st.sampled_from([0, 1, 127, 128, 300, 16_384]), min_size=1, max_size=6),
    cuts=st.lists(st.integers(1, 400), max_size=30),
)
def test_packets_are_the_same_wherever_the_stream_is_cut(sizes: list[int], cuts: list[int]) -> None:
    bodies = [bytes([place]) * size for place, size in enumerate(sizes)]
    stream = b"".join(packet(0x30 + place, body) for place, body in enumerate(bodies))
    inflow, found = Inflow(MOST_BYTES), []
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        for cut in [*cuts, len(stream)]:
            far.sendall(stream[:cut])
            stream = stream[cut:]
            while inflow.read(near):
                found += taken(inflow)
    assert found == [(0x30 + place, body) for place, body in enumerate(bodies)]


def test_what_came_before_the_end_can_still_be_taken(line: tuple[socket.socket, socket.socket]) -> None:
    near, far = line
    inflow = Inflow(MOST_BYTES)
    far.sendall(packet(0x30, b"last words"))
    far.close()
    ends = []
    for _ in range(2):
        inflow.read(near)
        ends.append(inflow.over)
    assert ends == [False, True]
    assert taken(inflow) == [(0x30, b"last words")]


def test_a_connection_that_is_reset_is_over(line: tuple[socket.socket, socket.socket]) -> None:
    near, far = line
    near.send(b"never read")
    far.close()  # a Unix socket resets what it has not read
    inflow = Inflow(MOST_BYTES)
    inflow.read(near)
    assert inflow.over


def test_nothing_to_read_is_not_the_end(line: tuple[socket.socket, socket.socket]) -> None:
    inflow = Inflow(MOST_BYTES)
    assert not inflow.read(line[0])
    assert not inflow.over


def test_a_packet_that_is_too_large_is_refused_by_its_header(
    line: tuple[socket.socket, socket.socket],
) -> None:
    near, far = line
    inflow = Inflow(MOST_BYTES)
    far.sendall(b"\x30" + varint(MOST_BYTES + 1))
    inflow.read(near)
    with pytest.raises(Oversize) as refused:
        inflow.next()
    assert refused.value.size == MOST_BYTES + 1


def test_a_length_of_five_bytes_is_none(line: tuple[socket.socket, socket.socket]) -> None:
    near, far = line
    inflow = Inflow(MOST_BYTES)
    far.sendall(b"\x30\x80\x80\x80\x80")
    inflow.read(near)
    with pytest.raises(ValueError, match="more than four bytes"):
        inflow.next()


def test_one_read_takes_no_more_than_its_share(line: tuple[socket.socket, socket.socket]) -> None:
    near, far = line
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * READ_BYTES)
    sent = far.send(packet(0x30, bytes(100)) * 2_000)
    assert sent > READ_BYTES
    inflow = Inflow(MOST_BYTES)
    inflow.read(near)
    assert len(taken(inflow)) == READ_BYTES // 102


def test_what_was_taken_is_let_go(line: tuple[socket.socket, socket.socket]) -> None:
    near, far = line
    inflow = Inflow(MOST_BYTES)
    for _ in range(1_000):
        far.sendall(packet(0x30, bytes(1_000)))
        inflow.read(near)
        assert len(taken(inflow)) == 1
    assert len(inflow._held) < 2_000
