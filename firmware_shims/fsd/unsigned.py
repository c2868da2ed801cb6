"""A network of int8 tensors as the same network of uint8 ones: every stored value and zero point 128 higher.

Sums of products do not change. The few operators that round after adding a zero point may, by one, in ties and
the last bit of a float32; onnxruntime makes the same change on x86-64, whose vector units multiply uint8 by int8.
"""

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from firmware_shims.fsd.layers import Constant, Layer, Network, Quantised, Scaling, Sum

OFFSET: Final = 128


def in_unsigned(network: Network) -> Network:
    """The network with its activations, and the constants that are added to them or scale them, in uint8."""
    return Network(
        tuple(map(_tensor, network.inputs)),
        tuple(map(_tensor, network.outputs)),
        tuple(map(_layer, network.layers)),
    )


def moved(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Int8 values 128 higher as uint8, or uint8 values 128 lower as int8: the topmost bit, turned."""
    return (values.view(np.uint8) ^ OFFSET).view(np.uint8 if values.dtype == np.int8 else np.int8)


def _tensor(tensor: Quantised) -> Quantised:
    if tensor.datatype == "UINT8":
        return tensor
    return replace(tensor, datatype="UINT8", zero_point=tensor.zero_point + OFFSET)


def _layer(layer: Layer) -> Layer:
    offset = OFFSET if layer.output.datatype == "INT8" else 0
    work = layer.work
    if isinstance(work, Sum | Scaling) and work.constant is not None:
        work = replace(work, constant=_constant(work.constant))
    return replace(
        layer,
        inputs=tuple(map(_tensor, layer.inputs)),
        output=_tensor(layer.output),
        work=work,
        floor=layer.floor + offset,
        ceiling=layer.ceiling + offset,
    )


def _constant(constant: Constant) -> Constant:
    if constant.values.dtype == np.uint8:
        return constant
    return Constant(moved(constant.values), constant.scales, constant.zero_point + OFFSET)
