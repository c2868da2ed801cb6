"""A GPIO chip with one line as gpiod shows it: edges can be lost, and the chip can be pulled out."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gpiod
from gpiod.line import Value

BUFFER = 16
"""Edges that the kernel keeps for a request; then it drops the oldest."""


class FakeRequest:
    """A `gpiod.LineRequest` of the chip's line; `fd` is readable while edges wait, and hangs up with the chip."""

    def __init__(self, chip: "FakeChip") -> None:
        self._chip = chip
        self._edges: list[gpiod.EdgeEvent] = []
        self._seqno = 0
        self._read_end, self._write_end = os.pipe()
        self.given_back = threading.Event()

    @property
    def fd(self) -> int:
        return self._read_end

    def get_value(self, line: int | str) -> Value:
        assert line == self._chip.line
        with self._chip.lock:
            if not self._chip.present:
                raise OSError(errno.ENODEV, "No such device")
            self._chip.reads += 1
            return Value.ACTIVE if self._chip.active else Value.INACTIVE

    def read_edge_events(self) -> list[gpiod.EdgeEvent]:
        with self._chip.lock:
            assert self._edges, "a read without an edge would wait for ever"
            os.read(self._read_end, 1)
            edges, self._edges = self._edges, []
            return edges

    def release(self) -> None:
        with self._chip.lock:
            os.close(self._read_end)
            self.hang_up()
            self.given_back.set()

    def add(self, active: bool) -> None:
        kind = gpiod.EdgeEvent.Type.RISING_EDGE if active else gpiod.EdgeEvent.Type.FALLING_EDGE
        self._seqno += 1
        if not self._edges:
            os.write(self._write_end, b"!")
        self._edges.append(gpiod.EdgeEvent(kind.value, 0, 5, self._seqno, self._seqno))
        del self._edges[:-BUFFER]

    def lose(self) -> None:
        self._seqno += 1

    def hang_up(self) -> None:
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1


class FakeChip:
    """The other side: whoever turns the key."""

    def __init__(self, line: int | str = "IGNITION") -> None:
        self.line = line
        self.present = True
        self.active = False
        self.reads = 0
        self.requests: list[FakeRequest] = []
        self.lock = threading.RLock()

    def request(self) -> FakeRequest:
        with self.lock:
            if not self.present:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory")
            self.requests.append(FakeRequest(self))
            return self.requests[-1]

    def turn(self, *levels: bool) -> None:
        """The line takes these levels, faster than anybody reads."""
        with self.lock:
            for self.active in levels:
                for request in self._armed():
                    request.add(self.active)

    def turn_unseen(self, active: bool) -> None:
        """The line changes, and the edge is lost."""
        with self.lock:
            self.active = active
            for request in self._armed():
                request.lose()

    @contextmanager
    def pulled_out(self) -> Iterator[None]:
        with self.lock:
            self.present = False
            for request in self._armed():
                request.hang_up()
        yield
        with self.lock:
            self.present = True

    def _armed(self) -> list[FakeRequest]:
        return [request for request in self.requests if not request.given_back.is_set()]
