"""The FSD emulator beside bare onnxruntime: ResNet-50 in int8, the same integers in and out, one thread each, in turn."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.fsd_networks import resnet50_int8
from firmware_shims.telemetry import NO_TELEMETRY

RUNS: Final = 5
"""In one turn of one side."""
WAIT_S: Final = 60.0
GOAL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Comparison:
    """The emulator's share of the bare runtime's throughput, by round."""

    run_ms: float
    shares: Sequence[float]
    different: int
    """Results in which the two differ."""

    def __str__(self) -> str:
        first, median, third = statistics.quantiles(self.shares, n=4, method="inclusive")
        reached = "met" if median >= GOAL else "MISSED"
        return (
            f"{'fsd emulator: ResNet-50, int8, 224 x 224':<46} {self.run_ms:>7.3f} ms"
            f"   throughput {median:.3f} ({first:.3f} .. {third:.3f})   n = {len(self.shares)}"
            f"   goal >= {GOAL:.2f}: {reached}   {self.different} results differ"
        )


def measure(rounds: int) -> list[str]:
    """Compare over `rounds` rounds; print-ready lines."""
    program = _integer_part(resnet50_int8())
    frame = np.random.default_rng(3).integers(0, 256, (1, 3, 224, 224)).astype(np.uint8)
    bare = _bare(program, frame)
    emulated, close = _emulated(program, frame)
    try:
        different = int(np.count_nonzero(emulated() != bare()))
        shares, bare_s = [], []
        for number in range(rounds):
            sides = (bare, emulated) if number % 2 == 0 else (emulated, bare)
            took_s = {side: _turn_s(side) for side in sides}
            shares.append(took_s[bare] / took_s[emulated])
            bare_s.append(took_s[bare] / RUNS)
    finally:
        close()
    title = (
        "fsd emulator beside bare onnxruntime, one row a run: median over rounds (first .. third quartile)"
    )
    return [title, str(Comparison(statistics.median(bare_s) * 1e3, shares, different))]


def _turn_s(side: Callable[[], object]) -> float:
    begun = time.perf_counter()
    for _ in range(RUNS):
        side()
    return time.perf_counter() - begun


def _integer_part(model: bytes) -> bytes:
    """What the NPU computes of a quantised model: between the first and the last 8-bit tensor."""
    import onnx  # noqa: PLC0415 - others run without the extra
    from onnx import shape_inference, utils  # noqa: PLC0415

    from firmware_shims.fsd.reading import read_model  # noqa: PLC0415

    described = shape_inference.infer_shapes(onnx.load_model_from_string(model), data_prop=True)
    layers = read_model(described).layers
    ends = [layers[0].inputs[0].name], [layers[-1].output.name]
    return bytes(utils.Extractor(described).extract_model(*ends).SerializeToString())


def _bare(program: bytes, frame: Any) -> Callable[[], Any]:
    os.environ.update(NO_TELEMETRY)
    import onnxruntime  # noqa: PLC0415 - not before its telemetry is off

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: frame}
    return lambda: session.run(None, inputs)[0]


def _emulated(program: bytes, frame: Any) -> tuple[Callable[[], Any], Callable[[], None]]:
    from firmware_shims.fsd.emulator import Emulator  # noqa: PLC0415 - others run without the extra

    emulator = Emulator()
    loaded = emulator.load(program, 0)
    results = np.zeros((1, *loaded.outputs[0].row_shape), np.uint8)
    loaded.bind([frame], [results])

    def run() -> Any:
        loaded.submit()
        loaded.wait(WAIT_S)
        return results

    return run, emulator.close


if __name__ == "__main__":
    for line in measure(rounds=31):
        print(line)
