"""What a backend can say of a model before it runs: where each layer goes, why, and what it is modelled to cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from backends.kernel import Model


@dataclass(frozen=True, slots=True)
class ExplainedLayer:
    """One layer, for one row. What is None is not modelled: the host has no model."""

    name: str
    operator: str
    place: Literal["npu", "host"]
    why: str
    """Why it is not on the NPU; empty where it is."""
    macs: int
    """Useful multiply-accumulates."""
    utilisation: float | None = None
    """Share of the array in use while the layer runs; 0 for layers without multiplications."""
    seconds: float | None = None
    joules: float | None = None
    sram_bytes: int | None = None
    dram_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """All layers in the order in which they run, and sums over those on the NPU."""

    device: str
    source: Literal["model"]
    """Of seconds and joules: they are predicted."""
    layers: Sequence[ExplainedLayer]
    npu_parts: int
    """How often a run goes from the host to the NPU."""
    macs: int
    npu_macs: int
    utilisation: float
    seconds: float
    joules: float
    sram_bytes: int
    dram_bytes: int
    resident_bytes: int
    """Weights that stay in the NPU's memory between runs."""
    notes: Sequence[str]


@runtime_checkable
class Explaining(Protocol):
    """A backend that can."""

    def explain(self, model: Model) -> Explanation:
        """Explain a model; raises `KernelError`. Without inputs, with the sizes that the file fixes."""
