"""ResNet-50 in floats and in int8: the topology out of the `onnx` package, weights generated."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from firmware_shims.telemetry import NO_TELEMETRY

Array = npt.NDArray[np.float32]
OPSET: Final = 17
IR_VERSION: Final = 8
FRAME: Final = (1, 3, 224, 224)
CALIBRATION_FRAMES: Final = 4
NORMALISATION: Final = ((0.3, 0.6), (-0.1, 0.1), (-0.1, 0.1), (0.8, 1.2))
"""Ranges of scale, bias, mean and variance: with them the values keep their size from layer to layer."""


def resnet50() -> bytes:
    """In floats."""
    return bytes(_resnet50().SerializeToString())


def resnet50_int8() -> bytes:
    """In QDQ form, uint8 activations and int8 weights with a scale for each channel; kept in the user's cache.

    What has changed there since it was made is made again.
    """
    import onnx  # noqa: PLC0415 - others run without the extra

    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    kept = Path(base) / "parkwatt" / f"resnet50-int8-onnx-{onnx.__version__}.onnx"
    digest = kept.with_suffix(".sha256")
    if kept.exists() and digest.exists():
        content = kept.read_bytes()
        if hashlib.sha256(content).hexdigest() == digest.read_text():
            return content
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}.part")
    _quantise(_resnet50(), part)
    content = part.read_bytes()
    part.rename(kept)
    digest.write_text(hashlib.sha256(content).hexdigest())
    return content


class _Frames:
    """Random frames, as the quantiser takes them."""

    def __init__(self, name: str) -> None:
        rng = np.random.default_rng(1)
        frames = [rng.normal(0, 1, FRAME).astype(np.float32) for _ in range(CALIBRATION_FRAMES)]
        self._left: Iterator[Mapping[str, Array]] = iter([{name: frame} for frame in frames])

    def get_next(self) -> Mapping[str, Array] | None:
        return next(self._left, None)


def _quantise(model: Any, path: Path) -> None:
    os.environ.update(NO_TELEMETRY)
    import onnxruntime  # noqa: PLC0415 - not before its telemetry is off
    from onnxruntime import quantization  # noqa: PLC0415

    folded = path.with_suffix(".folded")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)  # with the normalisations in the convolutions
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    quantization.quantize_static(
        folded,
        path,
        _Frames(session.get_inputs()[0].name),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    folded.unlink()


def _resnet50() -> Any:
    """The topology with weights in floats, of opset 17."""
    import onnx  # noqa: PLC0415 - as above
    from onnx import numpy_helper, version_converter  # noqa: PLC0415

    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / "light_resnet50.onnx")
    graph = model.graph
    held = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    shapes = {node.output[0]: held[node.input[0]] for node in graph.node if node.op_type == "ConstantOfShape"}
    computing = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    weights = _weights(computing, shapes, held)
    taken = {name for node in computing for name in node.input}
    held = {name: values for name, values in held.items() if name in taken and name not in weights}
    for node in computing:
        node.op_type = {"Sum": "Add"}.get(node.op_type, node.op_type)  # of two, which quantisers know
    inputs = [item for item in graph.input if item.name in taken - held.keys() - weights.keys()]
    for part in ("node", "initializer", "input", "value_info"):
        graph.ClearField(part)
    graph.node.extend(computing)
    graph.input.extend(inputs)
    graph.initializer.extend(
        numpy_helper.from_array(values, name) for name, values in (held | weights).items()
    )
    model.ir_version = IR_VERSION
    return version_converter.convert_version(model, OPSET)


def _weights(nodes: list[Any], shapes: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Array]:
    rng = np.random.default_rng(2)
    weights = {
        name: rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.05, tuple(shape))
        for name, shape in shapes.items()
    }
    for node in nodes:
        if node.op_type == "BatchNormalization":
            for name, limits in zip(node.input[1:], NORMALISATION, strict=True):
                weights[name] = rng.uniform(
                    *limits, held[name].shape if name in held else tuple(shapes[name])
                )
    return {name: values.astype(np.float32) for name, values in weights.items()}
