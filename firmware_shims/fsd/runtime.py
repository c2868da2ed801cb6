"""Sessions of onnxruntime that sum int8 products without loss on the processor they run on."""

import os
from functools import cache
from typing import Any, Final

import numpy as np
from onnx import ModelProto

from firmware_shims.fsd import arithmetic
from firmware_shims.fsd.interface import Code, FsdError
from firmware_shims.fsd.layers import Constant, Layer, MatrixProduct, Network, Quantised
from firmware_shims.fsd.lowering import lowered
from firmware_shims.telemetry import NO_TELEMETRY

FATAL: Final = 4
"""onnxruntime's log level: what fails comes back as an exception."""
PAIRS: Final = 32


def imported() -> Any:
    """The onnxruntime module. Raises `FsdError` NO_DEVICE where it is missing."""
    os.environ.update(NO_TELEMETRY)
    try:
        import onnxruntime  # noqa: PLC0415 - the reference does without
    except ImportError as error:
        text = f"{error}; pip install 'parkwatt[fsd]', or compute by the reference"
        raise FsdError(Code.NO_DEVICE, "open", text) from error
    return onnxruntime


def session(runtime: Any, model: ModelProto, threads: int) -> Any:
    """A session that computes `model` exactly."""
    return _session(runtime, model, threads, precise=saturates(runtime))


@cache
def saturates(runtime: Any) -> bool:
    """Whether this processor's fastest way saturates sums of pairs of products in int16: x86-64 without VNNI.

    The entry `session.x64quantprecision` helps, and makes a processor with VNNI less than half as fast.
    """
    largest = Quantised("x", "UINT8", (PAIRS,), 1.0, 0)
    result = Quantised("y", "UINT8", (1,), 255.0 * 127 * PAIRS / 200, 0)
    weights = Constant(np.full((PAIRS, 1), 127, np.int8), np.ones(1, np.float32), 0)
    layer = Layer("probe", "MatMul", (largest,), result, MatrixProduct(weights, None), 0, 255)
    values = np.full((1, PAIRS), 255, np.uint8)
    sums = arithmetic.product_sums(values, 0, weights.values, 0, None)
    exact = arithmetic.requantised(sums, arithmetic.multiplier(largest, weights.scales, result), result)
    probe = _session(runtime, lowered(Network((largest,), (result,), (layer,))), 1, precise=False)
    return bool(probe.run(None, {"x": values})[0] != exact)


def _session(runtime: Any, model: ModelProto, threads: int, *, precise: bool) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.x64quantprecision", "1" if precise else "0")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
