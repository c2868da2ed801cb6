"""What a busy bus costs: counted in calls and bytes, because a busy machine makes every time a guess."""

import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tapes import MESSAGE_OF, Tape, checked

import firmware_shims
from firmware_shims import vss
from firmware_shims.reading import Reading
from firmware_shims.socketcand import Frame

OURS = str(Path(firmware_shims.__file__).parent)
UNKNOWN = [Frame(message_id, bytes(8)) for message_id in range(0x400, 0x480)]
SPEEDS = [checked(MESSAGE_OF[vss.SPEED], (500 + number) << 12, counter=number % 16) for number in range(64)]
"""A car that drives: the value changes with every frame."""


class Latest:
    """A sink that keeps what the agent keeps: one reading of each signal."""

    urgent = True

    def __init__(self) -> None:
        self.readings: dict[str, Reading] = {}

    def update(self, readings: Sequence[Reading]) -> None:
        self.readings.update({reading.path: reading for reading in readings})

    def heard(self, source: str, now_ns: int) -> None:
        """Ages are not judged here."""


def calls_per_frame(frames: Sequence[Frame]) -> float:
    """Calls of functions of ours that each frame costs."""
    calls = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(OURS)

    tape, sink = Tape(frames), Latest()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        tape.played(sink)
    finally:
        sys.setprofile(before)
    return calls / len(frames)


def test_a_frame_with_an_unknown_id_is_read_looked_up_and_counted() -> None:
    assert calls_per_frame(UNKNOWN * 40) < 2.5


def test_a_frame_that_repeats_the_last_values_is_not_decoded_again() -> None:
    changing = calls_per_frame(SPEEDS * 40)
    same = [checked(MESSAGE_OF[vss.SPEED], 500 << 12, counter) for counter in range(16)]
    assert calls_per_frame(same * 160) < changing - 3


def bus(mark: "Marks", count: int) -> Iterator[Frame]:
    """Nine frames in ten of other computers; `mark` is told after each tenth of them."""
    unknown, speeds = cycle(UNKNOWN), cycle(SPEEDS)
    for number in range(count):
        if number % (count // 10) == 0:
            mark.note()
        yield next(speeds) if number % 10 == 0 else next(unknown)


class Marks:
    """Bytes that Python has allocated, now and then."""

    def __init__(self) -> None:
        self.bytes: list[int] = []

    def note(self) -> None:
        self.bytes.append(tracemalloc.get_traced_memory()[0])


@pytest.fixture
def marks() -> Iterator[Marks]:
    tracemalloc.start()
    yield Marks()
    tracemalloc.stop()


def test_two_hundred_thousand_frames_leave_nothing_behind(marks: Marks) -> None:
    sink = Latest()
    source = Tape(bus(marks, 200_000)).played(sink)
    assert source.counts.unknown == 180_000
    assert source.counts.accepted == 20_000 - 1  # the first is never trusted
    assert set(sink.readings) == {vss.SPEED}
    after_the_first_tenth = marks.bytes[1:]
    assert max(after_the_first_tenth) - min(after_the_first_tenth) < 4096
