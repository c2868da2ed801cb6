"""A model in its bare runtime, one thread, as a script of a few lines would run it: `python -m benchmarks.bare_runtime`.

Reads a `Subject` as one line of JSON, says `ready`, and then runs the model so many times as each further
line says, answering with a JSON list of what each run took in nanoseconds. Of our own code it uses only names
of datatypes and the switch that keeps onnxruntime from telling about us.
"""

import os
import sys
import time
from collections.abc import Callable

import msgspec

from backends.datatypes import NUMPY_NAMES
from backends.kernel import Tensor
from firmware_shims.telemetry import NO_TELEMETRY


class Subject(msgspec.Struct):
    """A model's file, its format and the inputs of one row, which are filled with ones."""

    path: str
    format: str
    inputs: tuple[Tensor, ...]


def onnx(subject: Subject) -> Callable[[], object]:
    """One run by onnxruntime."""
    os.environ.update(NO_TELEMETRY)
    import numpy as np  # noqa: PLC0415 - tflite models need no onnxruntime, and the other way round
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(subject.path, options, providers=["CPUExecutionProvider"])
    inputs = {
        tensor.name: np.ones((1, *tensor.row_shape), NUMPY_NAMES[tensor.datatype])
        for tensor in subject.inputs
    }
    return lambda: session.run(None, inputs)


def tflite(subject: Subject) -> Callable[[], object]:
    """One run by whichever runtime the tflite backend takes."""
    import numpy as np  # noqa: PLC0415 - as above

    from backends.tflite import Tflite, TfliteOptions  # noqa: PLC0415

    kind = Tflite(TfliteOptions())._interpreter()  # noqa: SLF001 - the same runtime, or the comparison is none
    interpreter = kind(model_path=subject.path, num_threads=1)
    interpreter.allocate_tensors()
    places = {known["name"]: known["index"] for known in interpreter.get_input_details()}
    inputs = {
        places[tensor.name]: np.ones((1, *tensor.row_shape), NUMPY_NAMES[tensor.datatype])
        for tensor in subject.inputs
    }
    outputs = [known["index"] for known in interpreter.get_output_details()]

    def run() -> object:
        for place, array in inputs.items():
            interpreter.set_tensor(place, array)
        interpreter.invoke()
        return [interpreter.get_tensor(place) for place in outputs]

    return run


def main() -> None:
    """Serve one caller until it closes its end."""
    subject = msgspec.json.decode(sys.stdin.readline(), type=Subject)
    run = {"onnx": onnx, "tflite": tflite}[subject.format](subject)
    print("ready", flush=True)
    for line in sys.stdin:
        took_ns = []
        for _ in range(int(line)):
            begun_ns = time.perf_counter_ns()
            run()
            took_ns.append(time.perf_counter_ns() - begun_ns)
        print(took_ns, flush=True)


if __name__ == "__main__":
    main()
