"""What layers cost on the modelled chip: cycles, bytes, seconds and joules.

Pure functions of `Demand`s, which `demand` makes of a network, and of a `Chip`: `chip` says what is published and
what is fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from firmware_shims.fsd.chip import FSD, Chip, Cycles, Product, array_cycles, moving_cycles
from firmware_shims.fsd.placement import Tensor, placed


@dataclass(frozen=True, slots=True)
class Demand:
    """What one layer asks of the chip for all rows of a run."""

    name: str
    operator: str
    product: Product | None
    """On the array; None for what only moves bytes."""
    hidden: bool
    """It takes no time: done to results as they leave the array, or by where they are written."""
    inputs: tuple[Tensor, ...]
    output: Tensor | None
    """None where it is an input under another name."""
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class LayerCost:
    """One layer on the modelled chip, for the rows that pass through it at once."""

    name: str
    operator: str
    macs: int
    cycles: int
    utilisation: float
    """Useful multiply-accumulates of what the array could have done in these cycles; 0 for layers without any."""
    sram_bytes: int
    dram_bytes: int
    seconds: float
    joules: float


@dataclass(frozen=True, slots=True)
class Report:
    """A run of a network on the modelled chip, and what loading it took before."""

    layers: tuple[LayerCost, ...]
    chip: Chip
    resident_bytes: int
    """Weights that stay in SRAM between runs; those beyond are read from DRAM every time."""
    times: int = 1
    """How often a run passes through the layers: a batch that does not fit SRAM is cheaper in parts."""

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates."""
        return self.times * sum(layer.macs for layer in self.layers)

    @property
    def cycles(self) -> int:
        """Cycles in which the NPU works; waiting for DRAM comes on top in `seconds`."""
        return self.times * sum(layer.cycles for layer in self.layers)

    @property
    def array_utilisation(self) -> float:
        """Over the layers that use the array: what the published figure is taken to mean."""
        cycles = self.times * sum(layer.cycles for layer in self.layers if layer.macs)
        return self.macs / (cycles * self.chip.macs_per_cycle) if cycles else 0.0

    @property
    def utilisation(self) -> float:
        """Over all layers."""
        return self.macs / (self.cycles * self.chip.macs_per_cycle) if self.cycles else 0.0

    @property
    def sram_bytes(self) -> int:
        """Read and written."""
        return self.times * sum(layer.sram_bytes for layer in self.layers)

    @property
    def dram_bytes(self) -> int:
        """Read and written, without loading."""
        return self.times * sum(layer.dram_bytes for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Of one run."""
        return self.times * sum(layer.seconds for layer in self.layers)

    @property
    def joules(self) -> float:
        """Of one run."""
        return self.times * sum(layer.joules for layer in self.layers)

    @property
    def load_seconds(self) -> float:
        """To bring the resident weights in, once."""
        return self.resident_bytes / self.chip.dram_bytes_per_s

    @property
    def load_joules(self) -> float:
        """For the same."""
        return self.resident_bytes * self.chip.dram_byte_j + self.load_seconds * self.chip.idle_w


def report(demands: Sequence[Demand], chip: Chip = FSD, cycles: Cycles = array_cycles) -> Report:
    """The cost of a run. `cycles` is the law of the array; another one shows what the checks are worth."""
    weights = [demand.weight_bytes for demand in demands]
    places = placed([(demand.inputs, demand.output) for demand in demands], weights, chip.sram_bytes)
    layers = tuple(
        _layer_cost(demand, dram_bytes, chip, cycles)
        for demand, dram_bytes in zip(demands, places.dram_bytes, strict=True)
    )
    return Report(layers, chip, places.resident_bytes)


def _layer_cost(demand: Demand, dram_bytes: int, chip: Chip, cycles: Cycles) -> LayerCost:
    macs, busy, sram_bytes = 0, 0, 0
    written = demand.output.bytes if demand.output else 0
    if demand.product:
        macs, busy = demand.product.macs, cycles(demand.product, chip)
        sram_bytes = chip.read_bytes_per_cycle * busy + written
    elif not demand.hidden:
        read = sum(tensor.bytes for tensor in demand.inputs)
        busy, sram_bytes = moving_cycles(read, written, chip), read + written
    seconds = max(busy / chip.clock_hz, dram_bytes / chip.dram_bytes_per_s)
    joules = (
        macs * chip.mac_j
        + sram_bytes * chip.sram_byte_j
        + dram_bytes * chip.dram_byte_j
        + seconds * chip.idle_w
    )
    utilisation = macs / (busy * chip.macs_per_cycle) if busy else 0.0
    return LayerCost(
        demand.name, demand.operator, macs, busy, utilisation, sram_bytes, dram_bytes, seconds, joules
    )
