"""An ONNX model's tensors as onnxruntime lists them, in the words of the kernel interface."""

from collections.abc import Sequence
from typing import Any, Final

from backends.declared import Declared, Dimension
from backends.kernel import MODEL_UNSUPPORTED, KernelError, Tensor

DATATYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
}
"""onnxruntime's type strings; strings, sequences and maps have no place in a slot."""


def datatype_of(argument: Any) -> str:
    """The Open Inference Protocol datatype of an onnxruntime NodeArg."""
    if argument.type not in DATATYPES:
        raise KernelError(
            MODEL_UNSUPPORTED,
            f"tensor {argument.name!r} is {argument.type}: only numbers and booleans run here",
        )
    return DATATYPES[argument.type]


def declared_by(arguments: Sequence[Any]) -> tuple[Declared, ...]:
    """What a session's `get_inputs` or `get_outputs` lists."""
    return tuple(
        Declared(argument.name, datatype_of(argument), tuple(map(_dimension, argument.shape)))
        for argument in arguments
    )


def datatypes_of(arguments: Sequence[Any], names: Sequence[str]) -> list[str]:
    """The Open Inference Protocol datatypes of those of the arguments that are named."""
    by_name = {argument.name: argument for argument in arguments}
    return [datatype_of(by_name[name]) for name in names]


def _dimension(given: int | str | None) -> Dimension:
    """A dimension below 0 is free, and so is one called "?": some exporters write that for every free one."""
    return None if given == "?" or (isinstance(given, int) and given < 0) else given


def free_dimensions(declared: Sequence[Declared], inputs: Sequence[Tensor]) -> dict[str, int]:
    """The sizes of the model's named dimensions as these inputs have them, the rows' own names left out."""
    of_rows = {
        argument.dimensions[0] for argument, tensor in zip(declared, inputs, strict=True) if not tensor.shared
    }
    sizes: dict[str, int] = {}
    for argument, tensor in zip(declared, inputs, strict=True):
        dimensions = argument.dimensions if tensor.shared else argument.dimensions[1:]
        for symbol, size in zip(dimensions, tensor.row_shape, strict=True):
            if not isinstance(symbol, str) or symbol in of_rows:
                continue
            if sizes.setdefault(symbol, size) != size:
                raise KernelError(
                    MODEL_UNSUPPORTED,
                    f"input {tensor.name!r} makes dimension {symbol!r} {size}, another input makes it {sizes[symbol]}",
                )
    return sizes
