"""Signal maps: which bits of which CAN messages are which signals of a car. Data files, no code.

A map is a TOML file. Everything is little-endian (Intel), bit 0 is the lowest bit of byte 0, as in a DBC's `@1`.

    [[message]]
    id = 0x118                            # above 0x7FF: an extended id
    name = "DI_systemStatus"              # for people
    length = 8                            # bytes; a list of lengths where they differ between cars
    period_ms = 10                        # how often each of its signals is repeated
    counter = { start = 8, length = 4 }   # optional: bits that count up by one with every frame
    checksum = { byte = 0, rule = "sum_id" }   # optional; the rules are `CHECKSUMS`
    mux = { start = 0, length = 2 }       # optional: bits that say which signals a frame carries

    [[message.signal]]
    path = "Vehicle.Speed"                # a VSS path, once in a map
    start = 12
    length = 12
    signed = false                        # two's complement
    scale = 0.08                          # value = raw * scale + offset, in the VSS unit
    offset = -40
    range = [-40, 285]                    # values outside are invalid
    invalid = [4095]                      # raw values that mean "not available"
    choices = { 1 = 126, 4 = 127 }        # raw -> value instead of scale; every other raw value is invalid
    mux = 0                               # only in frames with this value in the message's mux
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from firmware_shims.reading import Value

SHIPPED: Final = Path(__file__).with_name("signal_maps")
STALE_PERIODS: Final = 10
STALE_AT_LEAST_S: Final = 0.5

Bit = Annotated[int, msgspec.Meta(ge=0, lt=512)]
Width = Annotated[int, msgspec.Meta(ge=1, le=64)]
Length = Annotated[int, msgspec.Meta(ge=1, le=64)]
Payload = bytes | bytearray


class SignalMapError(ValueError):
    """A map that cannot be used: one line with the file, the place, the value and the limit."""


class _Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file; an unknown key is an error."""


class Bits(_Data, frozen=True):
    """A field of bits in a payload read as one little-endian number."""

    start: Bit
    length: Width

    def read(self, word: int) -> int:
        """The unsigned number in the field."""
        return (word >> self.start) & ((1 << self.length) - 1)

    def write(self, raw: int) -> int:
        """The payload with `raw` (two's complement where negative) in the field and zeros elsewhere."""
        return (raw & ((1 << self.length) - 1)) << self.start

    @property
    def mask(self) -> int:
        """The payload with ones in the field."""
        return self.write(-1)

    def __post_init__(self) -> None:
        if self.start + self.length > 512:
            raise ValueError(f"bits {self.start}+{self.length} lie outside of any frame (512 bits)")


def _sum_id(message_id: int, payload: Payload, place: int) -> int:
    """Sum of the id's two bytes and of every other byte, mod 256 (Tesla Model 3; seen in real frames)."""
    return (message_id + (message_id >> 8) + sum(payload) - payload[place]) & 0xFF


CHECKSUMS: Final[Mapping[str, Callable[[int, Payload, int], int]]] = {"sum_id": _sum_id}
"""Rules by name: (message id, payload, place of the checksum byte) -> the checksum that is right."""


class Checksum(_Data, frozen=True):
    """Where a frame carries its checksum and how it is computed."""

    byte: Annotated[int, msgspec.Meta(ge=0, lt=64)]
    rule: Literal["sum_id"]

    def of(self, message_id: int, payload: Payload) -> int:
        """The checksum that `payload` should carry."""
        return CHECKSUMS[self.rule](message_id, payload, self.byte)


class Signal(Bits, frozen=True, kw_only=True):
    """One signal of a message."""

    path: Annotated[str, msgspec.Meta(min_length=1)]
    signed: bool = False
    scale: float = 1.0
    offset: float = 0.0
    range: tuple[float, float] | None = None
    invalid: frozenset[int] = frozenset()
    choices: dict[int, bool | float | str] | None = None
    mux: int | None = None

    def decode(self, word: int) -> Value | None:
        """The value in the VSS unit; None when the car says that it has none, or says the impossible."""
        raw = self.read(word)
        if self.signed and raw >> (self.length - 1):
            raw -= 1 << self.length
        if self.choices is not None:
            return self.choices.get(raw)
        if raw in self.invalid:
            return None
        value = raw * self.scale + self.offset
        if self.range is not None and not self.range[0] <= value <= self.range[1]:
            return None
        return value

    def encode(self, value: Value | None) -> int:
        """The payload bits for `value` (None: those that say "no value"); ValueError when there are none."""
        if value is None:
            return self._encode_none()
        if self.choices is not None:
            for raw, choice in self.choices.items():
                if choice == value:
                    return self.write(raw)
            raise ValueError(f"{self.path} cannot be {value!r}: it knows {list(self.choices.values())}")
        if isinstance(value, str) or not math.isfinite(value):
            raise ValueError(f"{self.path} cannot be {value!r}: it is a number")
        raw = round((value - self.offset) / self.scale)
        low, high = self._raw_limits
        if not low <= raw <= high or self.decode(self.write(raw)) is None:
            raise ValueError(f"{self.path} cannot be {value!r}: outside of what its {self.length} bits carry")
        return self.write(raw)

    def _encode_none(self) -> int:
        low, high = self._raw_limits
        for raw in (*self.invalid, low, high, *range(min(high, len(self.choices or ())) + 1)):
            if self.decode(self.write(raw)) is None:
                return self.write(raw)
        raise ValueError(f"{self.path} cannot say that it has no value")

    @property
    def _raw_limits(self) -> tuple[int, int]:
        if self.signed:
            return -(1 << (self.length - 1)), (1 << (self.length - 1)) - 1
        return 0, (1 << self.length) - 1

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self._raw_limits
        for raw in (*self.invalid, *(self.choices or ())):
            if not low <= raw <= high:
                raise ValueError(f"raw value {raw} does not fit into {self.length} bits ({low}..{high})")
        if not (math.isfinite(self.scale) and math.isfinite(self.offset)) or self.scale == 0:
            raise ValueError(f"scale {self.scale:g}, offset {self.offset:g}: both finite, the scale not 0")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range {list(self.range)}: the first must be below the second")


class Message(_Data, frozen=True):
    """One CAN message."""

    id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 29)]
    length: Length | Annotated[tuple[Length, ...], msgspec.Meta(min_length=1)]
    period_ms: Annotated[float, msgspec.Meta(gt=0, le=60_000)]
    signals: Annotated[tuple[Signal, ...], msgspec.Meta(min_length=1)] = msgspec.field(name="signal")
    name: str = ""
    counter: Bits | None = None
    checksum: Checksum | None = None
    mux: Bits | None = None

    @property
    def is_extended(self) -> bool:
        """Whether the id has 29 bits."""
        return self.id > 0x7FF

    @property
    def lengths(self) -> tuple[int, ...]:
        """Every payload length in bytes that cars are known to send; the first is the usual one."""
        return self.length if isinstance(self.length, tuple) else (self.length,)

    @property
    def stale_after_s(self) -> float:
        """Age at which its signals are stale: ten periods, but never less than half a second."""
        return max(STALE_PERIODS * self.period_ms / 1000, STALE_AT_LEAST_S)

    def __post_init__(self) -> None:
        where = f"message 0x{self.id:X}"
        bits = 8 * min(self.lengths)
        for name, field in (("counter", self.counter), ("mux", self.mux)):
            if field is not None and field.start + field.length > bits:
                raise ValueError(f"{where}: {name} ends at bit {field.start + field.length} of {bits}")
        if self.checksum is not None and self.checksum.byte >= min(self.lengths):
            raise ValueError(f"{where}: checksum in byte {self.checksum.byte} of {min(self.lengths)}")
        for signal in self.signals:
            if signal.start + signal.length > bits:
                raise ValueError(
                    f"{where}: {signal.path} ends at bit {signal.start + signal.length} of {bits}"
                )
            if signal.mux is not None and (self.mux is None or signal.mux >> self.mux.length):
                raise ValueError(f"{where}: {signal.path} has mux {signal.mux}, which the message has not")


class SignalMap(_Data, frozen=True):
    """Every message of one kind of car that the agent listens to."""

    messages: Annotated[tuple[Message, ...], msgspec.Meta(min_length=1)] = msgspec.field(name="message")

    @property
    def stale_after_s(self) -> dict[str, float]:
        """Every path of the map with the age at which it is stale."""
        return {signal.path: message.stale_after_s for message in self.messages for signal in message.signals}

    def __post_init__(self) -> None:
        _once("message id", [f"0x{message.id:X}" for message in self.messages])
        _once("path", [signal.path for message in self.messages for signal in message.signals])


def _once(what: str, values: list[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{what} {value} is given twice")


def shipped() -> list[str]:
    """Names of the maps that come with the agent."""
    return sorted(file.stem for file in SHIPPED.glob("*.toml"))


def load(name: str) -> SignalMap:
    """The map of that name, or at that path (anything with a `/` or ending in `.toml`).

    Raises `SignalMapError` for a map that is not there or not usable.
    """
    path = Path(name) if "/" in name or name.endswith(".toml") else SHIPPED / f"{name}.toml"
    try:
        return msgspec.toml.decode(path.read_bytes(), type=SignalMap)
    except OSError as error:
        known = ", ".join(shipped())
        raise SignalMapError(
            f"no signal map {name!r} ({error.strerror}: {path}); give a path, or one of: {known}"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SignalMapError(f"signal map {path}: {error}") from error
