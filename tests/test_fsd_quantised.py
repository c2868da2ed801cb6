"""Networks as onnxruntime's static quantiser writes them, on the emulated NPU and in onnxruntime itself."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.utils
import pytest
from fsd_models import small_network
from onnx import ModelProto

from firmware_shims.fsd import runtime
from firmware_shims.fsd.emulator import Emulator
from firmware_shims.fsd.reading import read_model

Array = npt.NDArray[Any]


class Frames:
    """Random frames, as the calibration of onnxruntime's quantiser takes them."""

    def __init__(self, name: str, shape: tuple[int, ...], count: int = 8) -> None:
        rng = np.random.default_rng(3)
        self.all = [{name: rng.normal(0, 1, shape).astype(np.float32)} for _ in range(count)]
        self._left = iter(self.all)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def by_quantiser(folder: Path, activations: str) -> ModelProto:
    """The small network as onnxruntime's static quantiser writes it."""
    runtime.imported()
    import onnxruntime.quantization as quantization  # noqa: PLC0415, PLR0402 - not before its telemetry is off

    onnx.save(small_network(), folder / "float.onnx")
    quantization.quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Frames("x", (1, 3, 32, 32)),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType[activations],
        weight_type=quantization.QuantType.QInt8,
    )
    return onnx.load(folder / "int8.onnx")


@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
def test_all_that_a_quantiser_writes_of_a_network_becomes_layers(tmp_path: Path, activations: str) -> None:
    reading = read_model(by_quantiser(tmp_path, activations))
    kinds = [layer.operator for layer in reading.layers]
    assert {kind: kinds.count(kind) for kind in ("Conv", "ConvTranspose", "Add", "Concat", "Gemm")} == {
        "Conv": 2,
        "ConvTranspose": 1,
        "Add": 1,
        "Concat": 1,
        "Gemm": 1,
    }
    # the frame comes in floats: its quantisation stays on the host
    assert [refusal.operator for refusal in reading.refused] == ["QuantizeLinear"]


@pytest.mark.parametrize(("activations", "most"), [("QUInt8", 1), ("QInt8", 1)])
def test_a_quantised_network_gives_onnxruntimes_results(tmp_path: Path, activations: str, most: int) -> None:
    model = by_quantiser(tmp_path, activations)
    reading = read_model(model)
    first, last = reading.layers[0].inputs[0], reading.layers[-1].output
    described = onnx.shape_inference.infer_shapes(model, data_prop=True)
    cut = onnx.utils.Extractor(described).extract_model([first.name], [last.name])
    onnxruntime = runtime.imported()
    session = onnxruntime.InferenceSession(cut.SerializeToString(), providers=["CPUExecutionProvider"])
    frames = np.random.default_rng(9).integers(0, 256, (20, 1, 3, 32, 32)).astype(np.uint8)
    frames = frames if first.datatype == "UINT8" else frames.view(np.int8)
    emulator = Emulator()
    program = emulator.load(cut.SerializeToString(), 0)
    results = np.zeros((20, 10), frames.dtype)
    program.bind([frames], [results])
    program.submit(20)
    program.wait(60)
    emulator.close()
    theirs = np.concatenate([session.run(None, {first.name: frame})[0] for frame in frames])
    apart = np.abs(results.astype(int) - theirs)
    assert apart.max() <= most
    assert np.unique(theirs).size > 20
