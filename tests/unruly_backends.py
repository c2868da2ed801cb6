"""Backends that do what backends should not; workers find this module through PYTHONPATH."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from backends.kernel import Device, KernelError, Model, Spent, Tensor
from backends.null import Null, NullOptions, NullProgram


class CrashesInNativeCode(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        ctypes.string_at(0)
        return super().load(model, device)


class HasABug(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        raise ZeroDivisionError(f"a mistake in the backend with {model.format} on {device}")


class Refuses(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        raise KernelError(1023, f"{model.path} needs 9 GiB, {device} has 8 GiB")


class InventsACode(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        raise KernelError(999, f"{model.path} on {device}")


class DescribesNonsense(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        program = super().load(model, device)
        program.outputs = (Tensor("data", "UINT8", (-1024,)),)
        return program


class RunsOutOfMemory(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        raise MemoryError(f"{model.path} on {device}")


class HasNoUsableDevice(Null):
    def probe(self) -> list[Device]:
        return [Device("npu0", ("onnx",), why="the driver is not loaded")]


class TalksNonsense(Null):
    def probe(self) -> list[Device]:
        os.write(int(sys.argv[2]), b"\xc1 this is not MessagePack")
        time.sleep(60)
        return []


class ClosesItsSocket(Null):
    def probe(self) -> list[Device]:
        os.close(int(sys.argv[2]))
        time.sleep(60)
        return []


class LeavesAChild(Null):
    """Its probe starts a process that would outlive it, and names it as the device."""

    def probe(self) -> list[Device]:
        child = subprocess.Popen(["sleep", "60"])
        return [Device(str(child.pid), ("onnx",))]


class LeavesAChildAndEnds(LeavesAChild):
    def load(self, model: Model, device: str) -> NullProgram:
        raise SystemExit(f"ends in the middle of loading {model.path} on {device}")


class AnnouncedProgram(NullProgram):
    """Shows in its outputs, and to others in its name, that a run is under way."""

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Spent:
        Path("/proc/self/comm").write_text("running")
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


class StuckInNativeCode(AnnouncedProgram):
    """Keeps the interpreter to itself, so that no Python code of any thread can run."""

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Spent:
        self._run_s = 0.0
        spent = super().run(inputs, outputs)
        ctypes.PyDLL(None).sleep(60)
        return spent


class HoldsTheInterpreter(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        del device
        return StuckInNativeCode(model, self._options.run_us)


class MeddlingProgram(NullProgram):
    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Spent:
        for array in inputs.values():
            array[...] = 0
        return super().run(inputs, outputs)


class WritesIntoItsInputs(Null):
    def load(self, model: Model, device: str) -> NullProgram:
        del device
        return MeddlingProgram(model, self._options.run_us)


class ForgetfulOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")


class StuckProgram(NullProgram):
    """Answers every row with the first row of the batch, and counts in the last element."""

    runs = 0

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Spent:
        spent = super().run(inputs, outputs)
        self.runs += 1
        for array in outputs.values():
            array[1:] = array[:1]
            array[..., -1] = self.runs
        return spent


class BreaksTheContract(Null):
    Options = ForgetfulOptions

    def __init__(self, options: ForgetfulOptions) -> None:
        del options
        super().__init__(NullOptions())

    def load(self, model: Model, device: str) -> NullProgram:
        del device
        return StuckProgram(model, self._options.run_us)
