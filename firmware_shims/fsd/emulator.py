"""The published chip behind the driver interface: real results, modelled time and energy.

Results are those of `arithmetic`, computed on the host's processor; time and joules those of `cost`. Nothing is
paced: a run ends when the host has computed it.
"""

from typing import Final

from firmware_shims.fsd.chip import FSD
from firmware_shims.fsd.computing import Way, computations
from firmware_shims.fsd.emulated import EmulatedNpu, EmulatedProgram
from firmware_shims.fsd.interface import PROGRAM_FORMAT, Capabilities, Code, FsdError
from firmware_shims.fsd.operators import OPERATORS
from firmware_shims.fsd.reading import read_program

NPUS: Final = 2
VERSION: Final = "emulator 1"
"""Changes when results or modelled costs do."""


class Emulator:
    """An `NpuDevice` of two NPUs, each with a thread of its own that computes its runs.

    `way`: "fast" by one onnxruntime session a program, "reference" by NumPy, some hundred times slower. Results are
    the same, and one is never taken in place of the other. `threads`: of a fast run.
    """

    def __init__(self, way: Way = "fast", threads: int = 1) -> None:
        self.capabilities = Capabilities(
            name=f"FSD computer, emulated ({way})",
            npus=NPUS,
            sram_bytes=FSD.sram_bytes,
            clock_hz=round(FSD.clock_hz),
            macs_per_cycle=FSD.macs_per_cycle,
            operators=frozenset(OPERATORS),
            program_format=PROGRAM_FORMAT,
            energy_source="model",
            version=VERSION,
        )
        self._way: Way = way
        self._threads = threads
        self._npus = [EmulatedNpu(number) for number in range(NPUS)]

    def load(self, program: bytes, npu: int) -> EmulatedProgram:
        """Load a program (see `reading`) on NPU `npu`, from 0. Its weights share the SRAM with those loaded before.

        Raises `FsdError`: BAD_PROGRAM, UNSUPPORTED with the node, NO_DEVICE where onnxruntime is missing.
        """
        place = self._npu("load", npu)
        network = read_program(program)
        return place.load(network, computations(network, self._way, self._threads))

    def energy_nj(self, npu: int) -> int | None:
        """Modelled, since it was opened: of every load and every run; a run that was aborted counts whole."""
        return self._npu("read_energy", npu).energy_nj

    def temperature_c(self, npu: int) -> float | None:
        """None: nothing models heat."""
        self._npu("read_temperature", npu)
        return None

    def close(self) -> None:
        """Unload everything and end the threads."""
        for npu in self._npus:
            npu.close()

    def _npu(self, call: str, number: int) -> EmulatedNpu:
        if not 0 <= number < NPUS:
            raise FsdError(
                Code.BAD_ARGUMENT, call, f"there is no NPU {number}: the device has {NPUS}, from 0"
            )
        if self._npus[number].closed:
            raise FsdError(Code.NO_DEVICE, call, "the device is closed: open it again")
        return self._npus[number]
