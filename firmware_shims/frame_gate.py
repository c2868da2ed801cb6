"""Which frames of one CAN message are believed, and the readings in them."""

import enum

from firmware_shims.can_bus import Frame
from firmware_shims.reading import Quality, Reading, Value
from firmware_shims.signal_map import Message, Signal


class Judgement(enum.Enum):
    """What became of a frame."""

    ACCEPTED = "accepted"
    MALFORMED = "malformed"
    CHECKSUM = "checksum"
    COUNTER = "counter"


class FrameGate:
    """Remembers the previous frame of one message, and judges and decodes the next.

    A frame counts only when its checksum is right and its counter follows the previous one, so the first frame
    and the one after a gap are never believed. Whatever is not believed makes no reading: its signals age.
    """

    def __init__(self, message: Message, source: str) -> None:
        self._message = message
        self._lengths = message.lengths
        self._extended = message.is_extended
        self._source = source
        self._counter: int | None = None
        self._signal_bits = 0 if message.mux is None else message.mux.mask
        for signal in message.signals:
            self._signal_bits |= signal.mask
        self._bits: int | None = None
        self._values: list[tuple[str, Value | None, Quality]] = []

    def forget(self) -> None:
        """Begin anew after the interface was away."""
        self._counter = None

    def judge(self, frame: Frame) -> Judgement:
        """Decide about the next frame."""
        message = self._message
        data = frame.data
        if (
            frame.is_error_frame
            or len(data) not in self._lengths  # a remote frame has no data
            or frame.is_extended_id is not self._extended
        ):
            return Judgement.MALFORMED
        if message.checksum is not None and data[message.checksum.byte] != message.checksum.of(
            message.id, data
        ):
            return Judgement.CHECKSUM
        if message.counter is not None:
            counter = message.counter.read(int.from_bytes(data, "little"))
            previous, self._counter = self._counter, counter
            if previous is None or counter != (previous + 1) % (1 << message.counter.length):
                return Judgement.COUNTER
        return Judgement.ACCEPTED

    def readings(self, frame: Frame, stamp_ns: int) -> list[Reading]:
        """The signals of an accepted frame. Decodes only when a bit of theirs has changed."""
        bits = int.from_bytes(frame.data, "little") & self._signal_bits
        if bits != self._bits:
            self._bits = bits
            self._values = [_valued(signal, bits) for signal in self._carried(bits)]
        source = self._source
        return [Reading(path, value, source, stamp_ns, quality) for path, value, quality in self._values]

    def _carried(self, bits: int) -> list[Signal]:
        mux = self._message.mux
        if mux is None:
            return list(self._message.signals)
        page = mux.read(bits)
        return [signal for signal in self._message.signals if signal.mux in (None, page)]


def _valued(signal: Signal, bits: int) -> tuple[str, Value | None, Quality]:
    value = signal.decode(bits)
    return signal.path, value, Quality.INVALID if value is None else Quality.GOOD
