"""Frames that are not believed make no readings: what they carry ages, and work ends. With the real CAN source."""

import heapq
import threading
from collections.abc import Callable, Sequence

import pytest
from cars import FULLY_EQUIPPED, NS, HandClock, HandSource

from agent.guard import Guard
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy
from agent.protocol.reasons import Reason
from firmware_shims import signal_map, vss
from firmware_shims.can import CanSource
from firmware_shims.reading import Reading
from firmware_shims.signal_map import Message
from firmware_shims.socketcand import Frame

TESLA = signal_map.load("tesla_model3")
CHECKED = [message for message in TESLA.messages if message.counter and message.checksum]
SPOILED_AT_S, ENDS_AT_S = 3.0, 5.0
HEARD_EVERY_S = 0.05

Spoil = Callable[[Message, bytearray, int], None]
"""(message, the next right frame of it, its counter) -> changes the frame."""


def sealed(message: Message, payload: bytearray) -> None:
    if message.checksum is not None:
        payload[message.checksum.byte] = message.checksum.of(message.id, payload)


def counter_stands(message: Message, payload: bytearray, counter: int) -> None:
    counted(message, payload, counter, 7)


def counter_skips(message: Message, payload: bytearray, counter: int) -> None:
    counted(message, payload, counter, 2 * counter)


def counted(message: Message, payload: bytearray, right: int, wrong: int) -> None:
    assert message.counter is not None
    word = int.from_bytes(payload, "little") ^ message.counter.write(right) ^ message.counter.write(wrong)
    payload[:] = word.to_bytes(len(payload), "little")
    sealed(message, payload)


def checksum_off_by_one(message: Message, payload: bytearray, _: int) -> None:
    assert message.checksum is not None
    payload[message.checksum.byte] ^= 1


def cut_short(_: Message, payload: bytearray, __: int) -> None:
    del payload[-1]


class HandBus:
    """The frames of a parked and charging car on a clock by hand; from SPOILED_AT_S one message is spoiled."""

    def __init__(self, clock: HandClock, spoiled_id: int, spoil: Spoil) -> None:
        self.clock, self.spoiled_id, self.spoil = clock, spoiled_id, spoil
        self.began_ns = clock()
        self.due = [(self.began_ns, place) for place in range(len(TESLA.messages))]
        self.sent = [0] * len(TESLA.messages)

    @property
    def passed_s(self) -> float:
        return (self.clock() - self.began_ns) / NS

    def recv(self, timeout: float) -> Frame | None:
        due_ns, place = self.due[0]
        wait_ns = max(due_ns - self.clock(), 0)
        if wait_ns > timeout * NS:
            self.clock.forward(timeout)
            return None
        self.clock.now_ns += wait_ns
        message = TESLA.messages[place]
        heapq.heapreplace(self.due, (due_ns + int(message.period_ms * 1e6), place))
        self.sent[place] += 1
        return Frame(message.id, self.frame(message, self.sent[place]))

    def frame(self, message: Message, count: int) -> bytes:
        pages = sorted({signal.mux for signal in message.signals if signal.mux is not None}) or [0]
        page = pages[count % len(pages)]
        word = 0 if message.mux is None else message.mux.write(page)
        for signal in message.signals:
            if signal.mux in (None, page) and signal.path in FULLY_EQUIPPED:
                word |= signal.encode(FULLY_EQUIPPED[signal.path])
        if message.counter is not None:
            word |= message.counter.write(count)
        payload = bytearray(word.to_bytes(message.lengths[0], "little"))
        sealed(message, payload)
        if message.id == self.spoiled_id and self.passed_s >= SPOILED_AT_S:
            self.spoil(message, payload, count)
        return bytes(payload)

    def shutdown(self) -> None:
        """Nothing to close."""


class Agent:
    """The real guard behind the CAN source; the chip's temperature comes from a source of its own."""

    urgent = True

    def __init__(self, bus: HandBus) -> None:
        self.bus, self.stop = bus, threading.Event()
        self.can = CanSource("can", TESLA, {}, bus.clock, lambda: bus)
        declared = frozenset({*self.can.stale_after_s, vss.CHIP_TEMPERATURE})
        policy = Policy(PolicySettings(settle_s=1, grid_proof_s=1), declared, compute_w=60)
        chip = HandSource("chip", {vss.CHIP_TEMPERATURE: 0.5})
        self.guard = Guard(policy, [self.can, chip], bus.clock, lambda *_: None)
        self.killed_at_s: float | None = None

    def update(self, readings: Sequence[Reading]) -> None:
        self.guard.update(readings)

    def heard(self, source: str, now_ns: int) -> None:
        self.guard.update([Reading(vss.CHIP_TEMPERATURE, 45.0, "chip", now_ns)])
        self.guard.heard("chip", now_ns)
        self.guard.heard(source, now_ns)
        self.guard.look()
        if SPOILED_AT_S - 0.2 <= self.bus.passed_s < SPOILED_AT_S - 0.1:
            assert self.guard.admit(self.kill), self.guard.verdict.blockers
        if self.bus.passed_s >= ENDS_AT_S:
            self.stop.set()

    def kill(self) -> int:
        self.killed_at_s = self.bus.passed_s
        return self.bus.clock()


@pytest.mark.parametrize("message", CHECKED, ids=[message.name for message in CHECKED])
@pytest.mark.parametrize("spoil", [counter_stands, counter_skips, checksum_off_by_one, cut_short])
def test_a_message_that_is_not_believed_any_more_ends_work_when_its_signals_are_stale(
    message: Message, spoil: Spoil
) -> None:
    agent = Agent(HandBus(HandClock(), message.id, spoil))
    agent.can.run(agent, agent.stop)
    counts = agent.can.counts
    assert counts.rejected_counter + counts.rejected_checksum + counts.malformed > 10
    assert agent.killed_at_s is not None
    last_believed_s = SPOILED_AT_S - message.period_ms / 1000
    limit_s = message.stale_after_s
    assert last_believed_s + limit_s <= agent.killed_at_s <= SPOILED_AT_S + limit_s + 2 * HEARD_EVERY_S
    assert {blocker.reason for blocker in agent.guard.verdict.blockers} == {Reason.UNKNOWN_SIGNAL}


def test_frames_that_are_right_never_end_work() -> None:
    agent = Agent(HandBus(HandClock(), CHECKED[0].id, lambda *_: None))
    agent.can.run(agent, agent.stop)
    assert agent.killed_at_s is None
    assert agent.guard.verdict.allowed
