"""The published chip, and what computing on it is modelled to cost. Nothing here is measured.

Published (Hot Chips 31, 2019, and WikiChip on it): two NPUs of 96 x 96 multiply-accumulators, 2 GHz, 32 MiB of SRAM
each, 256 bytes of activations and 128 of weights read and 128 written a cycle, ReLU and pooling behind the array,
LPDDR4 of 68 GB/s, 7.5 W an NPU, more than 80 % of the array in use on Inception at 1280 x 960. Fitted, so that the
published 7.5 W and 4.9 TOPS/W come out at the peak: the four energies. Chosen: the cycles that begin a layer, and
what is called a judgement below. Not known: how the compiler tiles and places, what clock gating saves, how
transposed convolutions run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True, slots=True)
class Chip:
    """One NPU."""

    rows: int = 96
    columns: int = 96
    clock_hz: float = 2e9
    sram_bytes: int = 32 << 20
    activation_bytes_per_cycle: int = 256
    weight_bytes_per_cycle: int = 128
    write_bytes_per_cycle: int = 128
    dram_bytes_per_s: float = 68.26e9
    start_cycles: int = 160
    mac_j: float = 0.12e-12
    sram_byte_j: float = 4.4e-12
    dram_byte_j: float = 40e-12
    idle_w: float = 0.8

    @property
    def read_bytes_per_cycle(self) -> int:
        """From SRAM while the array works."""
        return self.activation_bytes_per_cycle + self.weight_bytes_per_cycle

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulators."""
        return self.rows * self.columns

    @property
    def peak_ops_per_s(self) -> float:
        """Multiplications and additions."""
        return 2 * self.macs_per_cycle * self.clock_hz


FSD = Chip()


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product on the array: `groups` times (m, k) by (k, n). `macs` are those that are no padding."""

    m: int
    n: int
    k: int
    groups: int
    macs: int


Cycles = Callable[[Product, Chip], int]


def array_cycles(product: Product, chip: Chip) -> int:
    """Cycles of one layer: accumulators of their own, so nothing travels through the array before or after.

    A tile of `rows` by `columns` results takes a cycle for each of its k terms, and no fewer than it takes to write
    its rows out.
    """
    tiles = ceil(product.m / chip.rows) * ceil(product.n / chip.columns) * product.groups
    return tiles * max(product.k, min(chip.rows, product.m)) + chip.start_cycles


def moving_cycles(read_bytes: int, written_bytes: int, chip: Chip) -> int:
    """Cycles of a pool, a sum or a rescaling of its own. Judgement: it keeps the pace of the SRAM's ports."""
    reading = ceil(read_bytes / chip.activation_bytes_per_cycle)
    return max(reading, ceil(written_bytes / chip.write_bytes_per_cycle)) + chip.start_cycles
