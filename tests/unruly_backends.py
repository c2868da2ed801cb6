"""Backends that do what backends should not; workers find this module through PYTHONPATH."""

import ctypes
import subprocess
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from backends.kernel import Device, Model, Needs, Spent
from backends.libc import PR_SET_NAME, prctl
from backends.null import Null, NullProgram


class TakesMuchMemory(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        bytearray(b"\1") * 2**29
        return super().load(model, device)


class LeavesAChild(Null):
    """Its probe starts a process that would outlive it, and names it as the device."""

    def probe(self) -> list[Device]:
        child = subprocess.Popen(["sleep", "60"])
        return [Device(str(child.pid), ("onnx",))]


class LeavesAChildAndEnds(LeavesAChild):
    def load(self, model: Model, device: str) -> NullProgram:
        raise SystemExit(f"ends in the middle of loading {model.path} on {device}")


class Circle:
    """Holds itself."""

    alive: ClassVar[int] = 0

    def __init__(self) -> None:
        self.itself = self
        Circle.alive += 1

    def __del__(self) -> None:
        Circle.alive -= 1


class LitteringProgram(NullProgram):
    """Makes 10,000 circles in a run, and says whether fewer than that are left."""

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Spent:
        for _ in range(10_000):
            Circle()
        spent = super().run(inputs, outputs)
        for array in outputs.values():
            array[...] = Circle.alive < 10_000
        return spent


class Litters(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        del device
        return LitteringProgram(model, self._options.run_us)


class AnnouncedProgram(NullProgram):
    """Shows in its outputs, and to others in its name, that a run is under way."""

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Spent:
        prctl(PR_SET_NAME, b"running")
        for array in outputs.values():
            array[...] = 1
        return super().run(inputs, outputs)


class AnnouncesItsRuns(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        del device
        return AnnouncedProgram(model, self._options.run_us)


class DeafProgram(AnnouncedProgram):
    def cancel(self) -> None:
        """Hears nothing."""


class IsDeaf(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        del device
        return DeafProgram(model, self._options.run_us)


class HungProgram(NullProgram):
    """Goes on for a minute where it had said that it takes no time."""

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Spent:
        self._run_s = 60.0
        return super().run(inputs, outputs)


class HangsInItsRuns(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        del device
        return HungProgram(model, self._options.run_us)


class NeverFindsItsDevice(Null):
    def probe(self) -> list[Device]:
        time.sleep(60)
        return []


class StuckInNativeCode(AnnouncedProgram):
    """Keeps the interpreter to itself, so that no Python code of any thread can run."""

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Spent:
        self._run_s = 0.0
        spent = super().run(inputs, outputs)
        ctypes.PyDLL(None).sleep(60)
        return spent


class HoldsTheInterpreterAWhile(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        del device
        return StuckInNativeCode(model, self._options.run_us)


class HoldsTheInterpreter(HoldsTheInterpreterAWhile):
    """It says so, and may."""

    needs: ClassVar[Needs] = Needs(interpreter_held_s=300)
