"""What stays in an NPU's SRAM and what goes through DRAM. How the real compiler decides is not published.

Activations come first: where those that are alive together do not fit, the largest of them lives in DRAM, written
once and read by every layer that takes it. Weights have what is left, in the order of the layers; the bytes that
do not fit are read in every run. What the program takes and gives lies in DRAM in any case.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tensor:
    """An activation of all rows."""

    name: str
    bytes: int
    outside: bool
    """Taken or given by the program."""


@dataclass(frozen=True, slots=True)
class Placed:
    """DRAM bytes of each layer, and the weights that stay."""

    dram_bytes: tuple[int, ...]
    resident_bytes: int


Step = tuple[Sequence[Tensor], Tensor | None]
"""What a layer takes, and what it gives where that is not one of them under another name."""


def placed(steps: Sequence[Step], weight_bytes: Sequence[int], sram_bytes: int) -> Placed:
    """Place the tensors of layers that run in this order."""
    spilled, peak = _spilled(steps, sram_bytes)
    room = left = max(0, sram_bytes - peak)
    dram_bytes, present = [], set[str]()
    for (inputs, output), weights in zip(steps, weight_bytes, strict=True):
        kept = min(weights, left)
        left -= kept
        taken = {tensor.name: tensor for tensor in inputs}.values()
        fetched = [
            item for item in taken if item.name in spilled or (item.outside and item.name not in present)
        ]
        given = [] if output is None else [output]
        stored = [item for item in given if item.name in spilled or item.outside]
        present.update(item.name for item in (*taken, *given))
        dram_bytes.append(weights - kept + sum(item.bytes for item in (*fetched, *stored)))
    return Placed(tuple(dram_bytes), room - left)


def _spilled(steps: Sequence[Step], sram_bytes: int) -> tuple[set[str], int]:
    """Names of the activations that live in DRAM, and the most bytes that the others need together."""
    last_use = {tensor.name: number for number, (inputs, _) in enumerate(steps) for tensor in inputs}
    alive: dict[str, Tensor] = {}
    spilled: set[str] = set()
    peak = 0
    for number, (inputs, output) in enumerate(steps):
        given = [] if output is None else [output]
        alive |= {tensor.name: tensor for tensor in (*inputs, *given) if tensor.name not in spilled}
        while sum(tensor.bytes for tensor in alive.values()) > sram_bytes:
            largest = max(alive.values(), key=lambda tensor: tensor.bytes)
            spilled.add(largest.name)
            del alive[largest.name]
        peak = max(peak, sum(tensor.bytes for tensor in alive.values()))
        alive = {name: tensor for name, tensor in alive.items() if last_use.get(name, -1) > number}
    return spilled, peak
