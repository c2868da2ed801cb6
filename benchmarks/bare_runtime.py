"""A model without a worker around it, as a script of a few lines would run it: `python -m benchmarks.bare_runtime`.

Reads a `Subject` as one line of JSON and says what runs it; then plays a script for each further line and answers
with what came of it. ONNX runs in onnxruntime and TFLite in the runtime that the tflite backend takes; everything
else is the backend itself, in this process. Of our own code the former use only names and the switch that keeps
onnxruntime from telling about us.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from backends.datatypes import NUMPY_NAMES
from backends.kernel import Tensor
from benchmarks.throughput.play import Played, Run, Script, Tally, Wait, steps
from firmware_shims.telemetry import NO_TELEMETRY

Outcome = tuple[float | None, str]
"""Joules of a run where the device has a figure, and of which kind."""
NOTHING_COUNTED: Outcome = (None, "")


class Subject(msgspec.Struct, frozen=True):
    """A model's file with its inputs, and how it is run. `arrays`: an .npz of samples; ones where there is none."""

    path: str
    format: str
    inputs: tuple[Tensor, ...]
    arrays: str = ""
    threads: int = 1
    spinning: bool = False
    optimisation: str = "all"
    use: str = ""
    """A backend to run it in this process; empty for the bare runtime of the format."""
    options: dict[str, Any] = {}
    device: str = ""
    sha256: str = ""


class Samples:
    """What runs are fed with; the samples begin again after the last."""

    def __init__(self, subject: Subject) -> None:
        import numpy as np  # noqa: PLC0415 - the parent takes only `Subject`

        self._tensors = subject.inputs
        if subject.arrays:
            with np.load(subject.arrays) as kept:
                self._arrays = {tensor.name: kept[tensor.name] for tensor in subject.inputs}
        else:
            self._arrays = {
                tensor.name: np.ones(
                    tensor.row_shape if tensor.shared else (1, *tensor.row_shape),
                    NUMPY_NAMES[tensor.datatype],
                )
                for tensor in subject.inputs
            }

    def rows(self, run: Run) -> dict[str, Any]:
        """The inputs of one run; nothing is copied unless they begin again within it."""
        return {tensor.name: self._of(tensor, run) for tensor in self._tensors}

    def _of(self, tensor: Tensor, run: Run) -> Any:
        array = self._arrays[tensor.name]
        if tensor.shared:
            return array
        begin = run.sample % len(array)
        if begin + run.rows <= len(array):
            return array[begin : begin + run.rows]
        return array.take(range(begin, begin + run.rows), axis=0, mode="wrap")


Side = tuple[str, Callable[[Run], Outcome]]
"""What runs it, and one run."""


def onnx(subject: Subject, samples: Samples) -> Side:
    """By onnxruntime."""
    os.environ.update(NO_TELEMETRY)
    import onnxruntime  # noqa: PLC0415 - tflite models need no onnxruntime, and the other way round

    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = subject.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if subject.spinning else "0")
    options.graph_optimization_level = {
        "disabled": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[subject.optimisation]
    session = onnxruntime.InferenceSession(subject.path, options, providers=["CPUExecutionProvider"])

    def run(what: Run) -> Outcome:
        session.run(None, samples.rows(what))
        return NOTHING_COUNTED

    return f"onnxruntime {onnxruntime.__version__}", run


def tflite(subject: Subject, samples: Samples) -> Side:
    """By whichever runtime the tflite backend takes."""
    from backends.tflite import Tflite, TfliteOptions  # noqa: PLC0415 - as above
    from backends.tflite_program import details  # noqa: PLC0415 - as above

    backend = Tflite(TfliteOptions())
    kind = backend._interpreter()  # noqa: SLF001 - the same runtime, or the comparison is none
    interpreter = kind(model_path=subject.path, num_threads=subject.threads)
    interpreter.allocate_tensors()
    inputs, outputs = details(interpreter)

    def run(what: Run) -> Outcome:
        for name, array in samples.rows(what).items():
            interpreter.set_tensor(inputs[name]["index"], array)
        interpreter.invoke()
        for known in outputs.values():
            interpreter.get_tensor(known["index"])
        return NOTHING_COUNTED

    return backend.version, run


def kernel(subject: Subject, samples: Samples) -> Side:
    """By the backend, without the worker."""
    from pathlib import Path  # noqa: PLC0415 - as above

    import numpy as np  # noqa: PLC0415 - as above

    from backends import registry  # noqa: PLC0415 - as above
    from backends.kernel import Model  # noqa: PLC0415 - as above
    from backends.slots import shape  # noqa: PLC0415 - as above

    os.environ.update(NO_TELEMETRY)
    backend = registry.find(subject.use)(registry.validate_options(subject.use, subject.options))
    backend.probe()
    model = Model(Path(subject.path), subject.sha256, subject.format, subject.inputs)
    program = backend.load(model, subject.device)
    made: dict[int, Mapping[str, Any]] = {}

    def run(what: Run) -> Outcome:
        if what.rows not in made:
            made[what.rows] = {
                tensor.name: np.zeros(shape(tensor, what.rows), NUMPY_NAMES[tensor.datatype])
                for tensor in program.outputs
            }
        spent = program.run(samples.rows(what), made[what.rows])
        return spent.joules, spent.joules_source

    return f"{subject.use} in the caller's process", run


def played(script: Script, run: Callable[[Run], Outcome]) -> Played:
    """Play it in this thread."""
    tally, going = Tally(), steps(script, time.perf_counter_ns)
    begun_ns, begun_cpu_s = time.perf_counter_ns(), time.process_time()
    while True:
        try:
            step = next(going)
        except StopIteration as end:
            seconds = (time.perf_counter_ns() - begun_ns) / 1e9
            return tally.played(seconds, time.process_time() - begun_cpu_s, end.value)
        if isinstance(step, Wait):
            time.sleep(max(0, step.until_ns - time.perf_counter_ns()) / 1e9)
        else:
            tally.add(step.rows, *run(step))


def main() -> None:
    """Serve one caller until it closes its end."""
    subject = msgspec.json.decode(sys.stdin.readline(), type=Subject)
    samples = Samples(subject)
    make = kernel if subject.use else {"onnx": onnx, "tflite": tflite}[subject.format]
    runtime, run = make(subject, samples)
    print(msgspec.json.encode(runtime).decode(), flush=True)
    decode = msgspec.json.Decoder(Script).decode
    for line in sys.stdin:
        print(msgspec.json.encode(played(decode(line), run)).decode(), flush=True)


if __name__ == "__main__":
    main()
