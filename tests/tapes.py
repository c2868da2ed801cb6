"""A CAN bus for tests that plays given frames on a clock of its own."""

import threading
from collections.abc import Iterable, Iterator

from listening import Ear

from firmware_shims import signal_map
from firmware_shims.can import CanSource
from firmware_shims.reading import Sink
from firmware_shims.signal_map import Message
from firmware_shims.socketcand import Frame

TESLA = signal_map.load("tesla_model3")
MESSAGE_OF = {signal.path: message for message in TESLA.messages for signal in message.signals}


def frame(message_id: int, payload: str) -> Frame:
    return Frame(message_id, bytes.fromhex(payload))


def checked(message: Message, word: int, counter: int) -> Frame:
    """A frame with these bits, and the counter and checksum that the message asks for."""
    if message.counter is not None:
        word = word & ~message.counter.mask | message.counter.write(counter)
    payload = bytearray(word.to_bytes(message.lengths[0], "little"))
    if message.checksum is not None:
        payload[message.checksum.byte] = message.checksum.of(message.id, payload)
    return Frame(message.id, bytes(payload))


class Tape:
    """A bus that gives these frames, one a millisecond, and is gone then; at the last end it stops the source.

    None is a wait that brought no frame.
    """

    def __init__(self, *sessions: Iterable[Frame | None]) -> None:
        self.sessions = list(sessions)
        self.stop = threading.Event()
        self.now_ns = 0
        self.frames: Iterator[Frame | None] = iter(())

    def clock(self) -> int:
        return self.now_ns

    def open_bus(self) -> "Tape":
        self.frames = iter(self.sessions.pop(0))
        return self

    def recv(self, timeout: float) -> Frame | None:
        del timeout
        self.now_ns += 1_000_000
        try:
            return next(self.frames)
        except StopIteration:
            raise EOFError from None

    def shutdown(self) -> None:
        if not self.sessions:
            self.stop.set()

    def played(self, sink: Sink) -> CanSource:
        source = CanSource("car", TESLA, {}, self.clock, self.open_bus)
        source.run(sink, self.stop)
        return source


def heard_from(*frames: Frame) -> Ear:
    """An ear that has heard these frames."""
    ear = Ear()
    Tape(frames).played(ear)
    return ear
