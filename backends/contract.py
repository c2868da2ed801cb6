"""The contract suite: what every backend has to do, whatever it runs on.

    python -m backends.contract MODULE:CLASS [--options JSON] [--device NAME]
                                [--model FILE --format FORMAT --input NAME:DATATYPE:SIZExSIZE ...]

prints a line per check and exits 1 when one fails. From a test: `for check in CHECKS: check(subject)`.
Without --model the checks use an ONNX model of their own (softmax over eight numbers).
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from backends import registry
from backends.datatypes import ITEM_BYTES, NUMPY_NAMES
from backends.kernel import (
    MODEL_UNSUPPORTED,
    Backend,
    Cancelled,
    Device,
    KernelError,
    Model,
    Program,
    Spent,
    Tensor,
)
from backends.process import WorkerProcess
from backends.slots import shape
from backends.tiny_onnx import one_node
from firmware_shims.clock import boottime_ns

if TYPE_CHECKING:
    from backends.kernel import Array

ROWS: Final = 5
CANCELLED_RUNS: Final = 20
TOLERANCE: Final = 1e-4
TOLERANCE_ALONE: Final = 1e-2
"""Wider: runtimes take other algorithms for one row than for several, and an ill-conditioned model shows it.
The file type model of the demo gives 0.005 for bytes that are all 0 or 1, 1e-7 for ordinary ones."""
HEAVY: Final = frozenset({"numpy", "onnxruntime", "tflite_runtime", "ai_edge_litert", "joserfc", "rich"})


class Broken(AssertionError):  # noqa: N818 - "the contract is broken", and a test shows it as a failure
    """A backend does not do what the kernel interface says."""


@dataclass(frozen=True)
class Subject:
    """What is checked: a backend by name or MODULE:CLASS, its options, and a model that it can run."""

    use: str
    model: Model
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None

    def backend(self) -> Backend:
        """A fresh backend in this process."""
        return registry.find(self.use)(registry.validate_options(self.use, self.options))

    def usable_device(self, backend: Backend) -> str:
        """The device asked for, else the first usable one."""
        if self.device:
            return self.device
        devices = backend.probe()
        for device in devices:
            if not device.why:
                return device.name
        raise Broken(f"nothing to check on: {devices or 'no device'}")

    @contextlib.contextmanager
    def program(self) -> Iterator[Program]:
        """The model, loaded in this process."""
        backend = self.backend()
        program = backend.load(self.model, self.usable_device(backend))
        try:
            yield program
        finally:
            program.close()


def require(condition: bool, text: str) -> None:
    """Raise `Broken` unless `condition` holds."""
    if not condition:
        raise Broken(text)


def some_inputs(tensors: Sequence[Tensor], rows: int) -> "dict[str, Array]":
    """Small seeded values, the same each time and different in each row; read-only, as a worker gives them."""
    import numpy as np  # noqa: PLC0415 - the module stays importable without the extras

    generator = np.random.default_rng(20260722)
    inputs: dict[str, Array] = {}
    for tensor in tensors:
        dtype = np.dtype(NUMPY_NAMES[tensor.datatype])
        size = shape(tensor, rows)
        values = generator.normal(size=size) if dtype.kind == "f" else generator.integers(0, 2, size=size)
        inputs[tensor.name] = values.astype(dtype)
        inputs[tensor.name].flags.writeable = False
    return inputs


def run(program: Program, inputs: "Mapping[str, Array]", rows: int, filling: int = 0) -> "dict[str, Array]":
    """The outputs of one run, into arrays whose bytes were all `filling` before."""
    outputs = blank_outputs(program, rows, filling)
    program.run(inputs, outputs)
    return outputs


def blank_outputs(program: Program, rows: int, filling: int) -> "dict[str, Array]":
    """Output arrays with every byte set to `filling`."""
    import numpy as np  # noqa: PLC0415

    outputs: dict[str, Array] = {}
    for tensor in program.outputs:
        outputs[tensor.name] = np.empty(shape(tensor, rows), NUMPY_NAMES[tensor.datatype])
        outputs[tensor.name].view(np.uint8)[...] = filling
    return outputs


def most_rows(program: Program) -> int:
    """How many rows the checks give at once."""
    return min(ROWS, program.max_batch or ROWS)


def same(left: "Mapping[str, Array]", right: "Mapping[str, Array]", what: str) -> None:
    """Require equal bytes."""
    for name, array in left.items():
        require(array.tobytes() == right[name].tobytes(), f"{what}: output {name!r} differs")


def alike(left: "Array", right: "Array", tolerance: float, what: str) -> None:
    """Require equal values within `tolerance`, relative or absolute."""
    import numpy as np  # noqa: PLC0415

    close = np.allclose(left.astype(float), right.astype(float), tolerance, tolerance, equal_nan=True)
    require(close, f"{what} differs by more than {tolerance}")


def refusal(action: Callable[[], Program]) -> KernelError | None:
    """The KernelError that `action` raises; None when it gives a program."""
    try:
        program = action()
    except KernelError as error:
        return error
    program.close()
    return None


def importing_it_is_light(subject: Subject) -> None:
    """The supervisor imports the module for its options, and may not get a runtime with it."""
    module = registry.find(subject.use).__module__
    code = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    # our own interpreter and code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"import {module} failed: {done.stderr[-500:]}")
    require(not done.stdout.strip(), f"import {module} also imports {done.stdout.strip()}: do it in a method")


def options_refuse_what_they_do_not_know(subject: Subject) -> None:
    """A misspelt key is an error, never ignored."""
    try:
        registry.validate_options(subject.use, {**subject.options, "no_such_option": 1})
    except ValidationError:
        return
    raise Broken("an unknown option was accepted: set model_config = ConfigDict(extra='forbid')")


def probe_names_devices(subject: Subject) -> None:
    """Devices have names of their own, and formats; an exception leaves nothing to say why."""
    devices = subject.backend().probe()
    require(all(isinstance(device, Device) for device in devices), f"not all are kernel.Device: {devices}")
    names = [device.name for device in devices]
    require(len(set(names)) == len(names), f"two devices have one name: {names}")
    require(all(device.formats for device in devices), f"a device takes no format: {devices}")


def an_unknown_device_is_refused(subject: Subject) -> None:
    """Nothing falls back to another device."""
    error = refusal(lambda: subject.backend().load(subject.model, "no-such-device"))
    require(error is not None, "a program was loaded on a device that does not exist")


def wrong_shapes_are_refused(subject: Subject) -> None:
    """Shapes are what was asked for, or code 132; a backend that takes any shape has to take these."""
    first, *others = subject.model.inputs
    wrong = replace(first, row_shape=(*first.row_shape, 3))
    model = replace(subject.model, inputs=(wrong, *others))
    backend = subject.backend()
    device = subject.usable_device(backend)
    try:
        program = backend.load(model, device)
    except KernelError as error:
        require(error.code == MODEL_UNSUPPORTED, f"refused with code {error.code}, not {MODEL_UNSUPPORTED}")
        require(wrong.name in error.text, f"the refusal does not name input {wrong.name!r}: {error.text}")
        return
    program.close()
    require(wrong in program.inputs, "another shape than the one given was loaded")


def an_unknown_output_is_refused(subject: Subject) -> None:
    """With code 132."""
    backend = subject.backend()
    device = subject.usable_device(backend)
    model = replace(subject.model, outputs=("no_such_output",))
    error = refusal(lambda: backend.load(model, device))
    require(error is not None and error.code == MODEL_UNSUPPORTED, f"{error} is not code {MODEL_UNSUPPORTED}")


def a_program_describes_itself(subject: Subject) -> None:
    """Inputs are those of the model, outputs have names, datatypes and shapes; costs are above zero."""
    with subject.program() as program:
        require(set(program.inputs) == set(subject.model.inputs), f"inputs are {program.inputs}")
        require(bool(program.outputs), "there is no output")
        require(all(tensor.datatype in ITEM_BYTES for tensor in program.outputs), f"{program.outputs}")
        most = program.max_batch
        require(most is None or most >= 1, f"max_batch is {most}")
        require(all(seconds > 0 for seconds in program.cost.run_s.values()), f"{program.cost}")


def a_run_fills_every_output(subject: Subject) -> None:
    """The same inputs give the same outputs whatever lay there before, and the inputs stay as they were."""
    with subject.program() as program:
        rows = most_rows(program)
        inputs = some_inputs(program.inputs, rows)
        before = {name: array.copy() for name, array in inputs.items()}
        outputs = [run(program, inputs, rows, filling) for filling in (0x00, 0xA5)]
        same(outputs[0], outputs[1], "a second run of the same inputs")
        same(before, inputs, "the inputs after a run")


def rows_do_not_see_each_other(subject: Subject) -> None:
    """Rows in another order, with other neighbours, give the same outputs in that order."""
    with subject.program() as program:
        rows = most_rows(program)
        inputs = some_inputs(program.inputs, rows)
        shared = {tensor.name for tensor in program.inputs if tensor.shared}
        turned = {name: a if name in shared else a[::-1].copy() for name, a in inputs.items()}
        batch = run(program, inputs, rows)
        for name, array in run(program, turned, rows).items():
            for row in range(rows):
                alike(array[rows - 1 - row], batch[name][row], TOLERANCE, f"row {row} of output {name!r}")


def a_row_alone_gives_the_same(subject: Subject) -> None:
    """A batch of rows gives what the rows give one by one."""
    with subject.program() as program:
        rows = most_rows(program)
        inputs = some_inputs(program.inputs, rows)
        shared = {tensor.name for tensor in program.inputs if tensor.shared}
        batch = run(program, inputs, rows)
        for row in range(rows):
            one = {name: a if name in shared else a[row : row + 1] for name, a in inputs.items()}
            for name, array in run(program, one, 1).items():
                alike(array[0], batch[name][row], TOLERANCE_ALONE, f"row {row} of output {name!r} alone")


def spent_is_within_the_call(subject: Subject) -> None:
    """Stamps are CLOCK_BOOTTIME, inside the call; joules are counted or None."""
    with subject.program() as program:
        inputs = some_inputs(program.inputs, 1)
        outputs = blank_outputs(program, 1, 0)
        before_ns = boottime_ns()
        spent = program.run(inputs, outputs)
        after_ns = boottime_ns()
        require(isinstance(spent, Spent), f"run returned {spent!r}")
        require(before_ns <= spent.begin_ns <= spent.end_ns <= after_ns, f"{spent}: {before_ns}..{after_ns}")
        require(spent.joules is None or spent.joules >= 0, f"joules are {spent.joules}")


def cancel_without_a_run_does_nothing(subject: Subject) -> None:
    """Twice, before and after a run; the next run is a good one."""
    with subject.program() as program:
        inputs = some_inputs(program.inputs, 1)
        good = run(program, inputs, 1)
        program.cancel()
        program.cancel()
        same(good, run(program, inputs, 1), "a run after a cancel")


def a_cancelled_run_harms_no_other(subject: Subject) -> None:
    """Cancelled from another thread a run raises Cancelled or ends well, and the next run is a good one."""
    with subject.program() as program:
        inputs = some_inputs(program.inputs, 1)
        good = run(program, inputs, 1)
        enough = threading.Event()

        def cancel_all_the_time() -> None:
            while not enough.is_set():
                program.cancel()

        thread = threading.Thread(target=cancel_all_the_time)
        thread.start()
        try:
            for _ in range(CANCELLED_RUNS):
                with contextlib.suppress(Cancelled):
                    same(good, run(program, inputs, 1), "a run beside a cancel")
        finally:
            enough.set()
            thread.join()
        same(good, run(program, inputs, 1), "a run after a cancelled run")


def closing_twice_is_harmless(subject: Subject) -> None:
    """`close` lets go of the device; again it does nothing."""
    with subject.program() as program:
        program.close()


def a_worker_gives_the_same(subject: Subject) -> None:
    """In a worker process, through shared memory, a run gives what it gives here."""
    with subject.program() as program:
        rows = most_rows(program)
        inputs = some_inputs(program.inputs, rows)
        here = run(program, inputs, rows)
    there = asyncio.run(_outputs_of_a_worker(subject, inputs, rows))
    for name, array in here.items():
        require(array.tobytes() == there[name], f"output {name!r} of the worker differs")


async def _outputs_of_a_worker(
    subject: Subject, inputs: "Mapping[str, Array]", rows: int
) -> dict[str, bytes]:
    worker = WorkerProcess.start(subject.use, subject.options)
    try:
        program = await worker.load(subject.model, subject.device)
        with worker.slot(program, rows) as slot:
            for tensor, view in zip(program.inputs, slot.inputs, strict=True):
                view[:] = inputs[tensor.name].tobytes()
            await worker.run(slot)
            return {
                tensor.name: bytes(view) for tensor, view in zip(program.outputs, slot.outputs, strict=True)
            }
    finally:
        await worker.stop()


Check = Callable[[Subject], None]

CHECKS: Final[tuple[Check, ...]] = (
    importing_it_is_light,
    options_refuse_what_they_do_not_know,
    probe_names_devices,
    an_unknown_device_is_refused,
    wrong_shapes_are_refused,
    an_unknown_output_is_refused,
    a_program_describes_itself,
    a_run_fills_every_output,
    rows_do_not_see_each_other,
    a_row_alone_gives_the_same,
    spent_is_within_the_call,
    cancel_without_a_run_does_nothing,
    a_cancelled_run_harms_no_other,
    closing_twice_is_harmless,
    a_worker_gives_the_same,
)


def own_model(folder: Path) -> Model:
    """Write the suite's own model: softmax over eight numbers, any number of rows."""
    data = one_node("Softmax", {"x": ("FP32", ("rows", 8))}, ("FP32", ("rows", 8)))
    path = folder / "softmax.onnx"
    path.write_bytes(data)
    return Model(path, hashlib.sha256(data).hexdigest(), "onnx", (Tensor("x", "FP32", (8,)),))


def given_model(path: Path, file_format: str, inputs: Sequence[str]) -> Model:
    """The model of the command line; an input is NAME:DATATYPE:SIZExSIZE, without the row dimension."""
    tensors: list[Tensor] = []
    for text in inputs:
        name, datatype, sizes = text.rsplit(":", 2)
        if datatype not in ITEM_BYTES:
            raise ValueError(f"--input {text}: datatype {datatype!r} is none of {', '.join(ITEM_BYTES)}")
        tensors.append(Tensor(name, datatype, tuple(int(size) for size in sizes.split("x") if size)))
    return Model(path, hashlib.sha256(path.read_bytes()).hexdigest(), file_format, tuple(tensors))


def check_all(subject: Subject) -> bool:
    """Run every check and print a line for each; whether all passed."""
    failed = 0
    for check in CHECKS:
        title = check.__name__.replace("_", " ")
        try:
            check(subject)
        except Exception as error:  # noqa: BLE001 - what a foreign backend raises is its failure
            failed += 1
            print(f"FAIL  {title}: {type(error).__name__}: {error}")  # noqa: T201 - the command's output
        else:
            print(f"ok    {title}")  # noqa: T201
    print(f"{subject.use}: {len(CHECKS) - failed} of {len(CHECKS)} checks passed")  # noqa: T201
    return failed == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when every check passed, 2 for arguments that make no sense."""
    parser = argparse.ArgumentParser(prog="python -m backends.contract", description=__doc__.splitlines()[0])
    parser.add_argument("backend", help="MODULE:CLASS, or the name of a known backend")
    parser.add_argument("--options", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--device", help="default: the first usable one")
    parser.add_argument("--model", type=Path, help="default: a softmax of its own")
    parser.add_argument("--format", default="onnx")
    parser.add_argument("--input", action="append", default=[], metavar="NAME:DATATYPE:SIZExSIZE")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        try:
            registry.validate_options(given.backend, given.options)
            model = (
                given_model(given.model, given.format, given.input)
                if given.model
                else own_model(Path(folder))
            )
        except (registry.UnknownBackend, ValueError, OSError) as error:
            parser.error(str(error))
        return 0 if check_all(Subject(given.backend, model, given.options, given.device)) else 1


if __name__ == "__main__":
    sys.exit(main())
