"""Networks as onnxruntime's static quantiser writes them, on the emulated NPU and in onnxruntime itself."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.utils
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

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


def small_network() -> ModelProto:
    """Floats: convolutions with groups, a residual, pools, a transposed convolution, a join and a classifier."""
    rng = np.random.default_rng(5)
    held: list[TensorProto] = []

    def weights(*shape: int) -> str:
        fan = int(np.prod(shape[1:]))
        values = rng.normal(0, (2 / fan) ** 0.5, shape) if len(shape) > 1 else rng.normal(0, 0.1, shape)
        held.append(numpy_helper.from_array(values.astype(np.float32), f"w{len(held)}"))
        return held[-1].name

    make = helper.make_node
    nodes = [
        make("Conv", ["x", weights(16, 3, 3, 3), weights(16)], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        make("Relu", ["a"], ["b"]),
        make("Conv", ["b", weights(16, 4, 3, 3), weights(16)], ["c"], pads=[1, 1, 1, 1], group=4),
        make("Add", ["b", "c"], ["d"]),
        make("Relu", ["d"], ["e"]),
        make("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        make("ConvTranspose", ["f", weights(16, 8, 2, 2)], ["g"], strides=[2, 2]),
        make("AveragePool", ["e"], ["h"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        make("Concat", ["g", "h"], ["i"], axis=1),
        make("GlobalAveragePool", ["i"], ["j"]),
        make("Flatten", ["j"], ["k"]),
        make("Gemm", ["k", weights(10, 24), weights(10)], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        held,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def by_quantiser(folder: Path, activations: str) -> ModelProto:
    """The small network as onnxruntime's static quantiser writes it."""
    runtime.imported()
    from onnxruntime import quantization  # noqa: PLC0415 - not before its telemetry is off

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
