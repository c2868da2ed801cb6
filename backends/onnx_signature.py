"""Fits what a task brings to what an ONNX model takes: names, datatypes, shapes; a misfit is code 132."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from backends.kernel import MODEL_UNSUPPORTED, KernelError, Model, Tensor

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


def fit_inputs(arguments: Sequence[Any], model: Model) -> tuple[Tensor, ...]:
    """The model's inputs in the order of the file, as given; raises `KernelError` 132 for any misfit."""
    given = {tensor.name: tensor for tensor in model.inputs}
    names = [argument.name for argument in arguments]
    for missing in (name for name in names if name not in given):
        raise KernelError(
            MODEL_UNSUPPORTED, f"input {missing!r} is missing; the model takes {', '.join(names)}"
        )
    for extra in (name for name in given if name not in names):
        raise KernelError(MODEL_UNSUPPORTED, f"input {extra!r} is not one of the model's: {', '.join(names)}")
    tensors = tuple(given[name] for name in names)
    for argument, tensor in zip(arguments, tensors, strict=True):
        _check(argument, tensor)
    if all(tensor.shared for tensor in tensors):
        raise KernelError(MODEL_UNSUPPORTED, "every input is shared: there is no row to run")
    return tensors


def _check(argument: Any, tensor: Tensor) -> None:
    if tensor.datatype != datatype_of(argument):
        raise KernelError(
            MODEL_UNSUPPORTED,
            f"input {tensor.name!r} is given as {tensor.datatype}, the model takes {datatype_of(argument)}",
        )
    fixed = [_fixed(dimension) for dimension in argument.shape]
    given = tensor.row_shape if tensor.shared else (None, *tensor.row_shape)
    if len(given) != len(fixed) or any(
        size is not None and want is not None and size != want
        for size, want in zip(given, fixed, strict=True)
    ):
        raise KernelError(
            MODEL_UNSUPPORTED,
            f"input {tensor.name!r} is given with shape {_shown(given)}, the model takes {_shown(argument.shape)}",
        )
    if not tensor.shared and fixed[0] not in {None, 1}:
        raise KernelError(
            MODEL_UNSUPPORTED,
            f"input {tensor.name!r} takes {fixed[0]} rows at once; export the model with 1 or with a free "
            "first dimension, or mark the input as shared",
        )


def _fixed(dimension: int | str | None) -> int | None:
    """A dimension that the model fixes; None when it is free (a symbol or nothing)."""
    return dimension if isinstance(dimension, int) and dimension >= 0 else None


def _shown(dimensions: Iterable[int | str | None]) -> str:
    return "[" + ", ".join(str("any" if d is None else d) for d in dimensions) + "]"


def rows_are_free(arguments: Sequence[Any], inputs: Sequence[Tensor]) -> bool:
    """Whether every input that has rows takes any number of them."""
    return all(
        _fixed(argument.shape[0]) is None
        for argument, tensor in zip(arguments, inputs, strict=True)
        if not tensor.shared
    )


def free_dimensions(arguments: Sequence[Any], inputs: Sequence[Tensor]) -> dict[str, int]:
    """The sizes of the model's named dimensions as these inputs have them, the rows' own names left out."""
    of_rows = {
        argument.shape[0] for argument, tensor in zip(arguments, inputs, strict=True) if not tensor.shared
    }
    sizes: dict[str, int] = {}
    for argument, tensor in zip(arguments, inputs, strict=True):
        dimensions = argument.shape if tensor.shared else argument.shape[1:]
        for symbol, size in zip(dimensions, tensor.row_shape, strict=True):
            if not isinstance(symbol, str) or symbol in of_rows:
                continue
            if sizes.setdefault(symbol, size) != size:
                raise KernelError(
                    MODEL_UNSUPPORTED,
                    f"input {tensor.name!r} makes dimension {symbol!r} {size}, another input makes it {sizes[symbol]}",
                )
    return sizes


def wanted_outputs(arguments: Sequence[Any], model: Model) -> tuple[str, ...]:
    """The outputs to compute, all of them unless the model says which."""
    known = {argument.name: argument for argument in arguments}
    for unknown in (name for name in model.outputs if name not in known):
        raise KernelError(
            MODEL_UNSUPPORTED, f"output {unknown!r} is not one of the model's: {', '.join(known)}"
        )
    wanted = model.outputs or tuple(known)
    for name in wanted:
        datatype_of(known[name])
    return wanted
