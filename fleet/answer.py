"""What comes back: rows as they arrive, the whole answer, and how a task can fail."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from agent.protocol import tensors
from agent.protocol.messages import Datatype, EnergySource, Event, Result, Usage
from agent.protocol.reasons import Reason, Refused


class TaskFailed(Exception):  # noqa: N818 - an outcome, which may be nobody's error
    """A task that will not be answered in full. `code` and `name` are the wire contract's.

    `rows_done` rows had been accepted before; a stream has delivered them.
    """

    def __init__(self, code: Reason, text: str, rows_done: int = 0) -> None:
        super().__init__(f"{code.value} {code.label}: {text}")
        self.code = code
        self.name = code.label
        self.text = text
        self.rows_done = rows_done


class GivenBack(Exception):  # noqa: N818 - an outcome that is nobody's error
    """An attempt that is over without all of its rows, for a reason of the vehicle's side; see `Vehicle.assign`.

    `code` is from 1000, `resume_at` the time that the vehicle named, if any.
    """

    def __init__(self, code: Reason, text: str, resume_at: dt.datetime | None = None) -> None:
        super().__init__(f"{code.value} {code.label}: {text}")
        self.code = code
        self.text = text
        self.resume_at = resume_at


@dataclass(frozen=True, slots=True)
class Output:
    """One output tensor: `data` is row-major and little-endian, `row_shape` the shape behind the rows."""

    datatype: Datatype
    row_shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows `[begin, end)` that were accepted, each exactly once, and what they cost."""

    begin: int
    end: int
    attempt: int
    outputs: Mapping[str, Output]
    usage: Usage

    def cut(self, begin: int, end: int) -> "Rows":
        """Rows `[begin, end)` of these, with their share of the cost."""
        if (begin, end) == (self.begin, self.end):
            return self
        rows = self.end - self.begin
        outputs = {}
        for name, output in self.outputs.items():
            row_bytes = len(output.data) // rows
            data = output.data[(begin - self.begin) * row_bytes : (end - self.begin) * row_bytes]
            outputs[name] = replace(output, data=data)
        return Rows(begin, end, self.attempt, outputs, _share(self.usage, (end - begin) / rows))


@dataclass(frozen=True, slots=True)
class Answer:
    """Every row of a task, in order. `usage` has an entry for each piece in which the rows came."""

    outputs: Mapping[str, Output]
    usage: Sequence[Usage]
    events: Sequence[Event]
    attempts: int
    rows: int

    @property
    def energy_j(self) -> dict[EnergySource, float]:
        """Active joules by their source: sources are never mixed in one number. Empty without a meter."""
        joules: dict[EnergySource, float] = {}
        for usage in self.usage:
            if usage.energy_j is not None:
                joules[usage.energy_source] = joules.get(usage.energy_source, 0.0) + usage.energy_j
        return joules

    @property
    def device_s(self) -> float:
        """Seconds of the device."""
        return sum(usage.device_s for usage in self.usage)


def rows_of(result: Result, tail: memoryview) -> Rows:
    """The rows of a result; raises `Refused` (102) where its tensors do not have them."""
    begin, end = result.rows
    raws = tensors.unpack(result.outputs, tail)
    outputs: dict[str, Output] = {}
    for tensor, raw in zip(result.outputs, raws, strict=True):
        if not tensor.shape or tensor.shape[0] != end - begin:
            text = f"output {tensor.name!r} has the shape {tensor.shape} in a result of {end - begin} rows"
            raise Refused(Reason.BAD_TENSOR, text)
        outputs[tensor.name] = Output(tensor.datatype, tuple(tensor.shape[1:]), bytes(raw))
    return Rows(begin, end, result.attempt, outputs, result.usage)


def check_alike(first: Rows, later: Rows) -> None:
    """Raise `Refused` (102) unless both have the same outputs: else they cannot be one answer."""
    for side, other in ((first, later), (later, first)):
        for name, output in side.outputs.items():
            match = other.outputs.get(name)
            if match is None or (match.datatype, match.row_shape) != (output.datatype, output.row_shape):
                text = (
                    f"output {name!r} of rows [{later.begin}, {later.end}) is not like that of "
                    f"[{first.begin}, {first.end})"
                )
                raise Refused(Reason.BAD_TENSOR, text)


def joined(pieces: Sequence[Rows]) -> dict[str, Output]:
    """The outputs of pieces that are alike, in the order of their rows."""
    in_order = sorted(pieces, key=lambda piece: piece.begin)
    return {
        name: replace(output, data=b"".join(piece.outputs[name].data for piece in in_order))
        for name, output in in_order[0].outputs.items()
    }


def _share(usage: Usage, share: float) -> Usage:
    return msgspec.structs.replace(
        usage,
        wall_s=usage.wall_s * share,
        device_s=usage.device_s * share,
        energy_j=_scaled(usage.energy_j, share),
        idle_j=_scaled(usage.idle_j, share),
        grid_j=_scaled(usage.grid_j, share),
        pack_j=_scaled(usage.pack_j, share),
    )


def _scaled(joules: float | None, share: float) -> float | None:
    return None if joules is None else joules * share
