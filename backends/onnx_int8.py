"""Whether onnxruntime sums products of 8-bit integers without loss on this processor."""

import struct
from functools import cache
from typing import Any, Final

from backends.tiny_onnx import constant, one_node

PRODUCTS: Final = 32
RESULT: Final = 200
"""Of the largest sum there is, once it is scaled to 8 bits."""
FATAL: Final = 4


@cache
def saturates(runtime: Any) -> bool:
    """Whether sums of two products are cut to 16 bits, as on x86-64 without VNNI.

    `session.x64quantprecision` helps there. Elsewhere it would only make int8 models less than half as fast.
    """
    import numpy as np  # noqa: PLC0415 - only in the worker

    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = FATAL
    session = runtime.InferenceSession(_largest_sum(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((1, PRODUCTS), 255, np.uint8)})
    return int(found[0, 0]) != RESULT


def _largest_sum() -> bytes:
    """255 times 127, 32 times."""
    scale = 255 * 127 * PRODUCTS / RESULT
    constants = {
        "x_scale": ("FP32", [], struct.pack("<f", 1.0)),
        "x_zero": ("UINT8", [], b"\0"),
        "w": ("INT8", [PRODUCTS, 1], b"\x7f" * PRODUCTS),
        "w_scale": ("FP32", [], struct.pack("<f", 1.0)),
        "w_zero": ("INT8", [], b"\0"),
        "y_scale": ("FP32", [], struct.pack("<f", scale)),
        "y_zero": ("UINT8", [], b"\0"),
    }
    encoded = b"".join(constant(name, *spec) for name, spec in constants.items())
    return one_node(
        "QLinearMatMul", {"x": ("UINT8", [1, PRODUCTS])}, ("UINT8", [1, 1]), encoded, list(constants)
    )
