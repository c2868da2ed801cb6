"""Fits what a task brings to what a model file declares: names, datatypes, shapes; a misfit is code 132."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backends.kernel import MODEL_UNSUPPORTED, KernelError, Model, Tensor

Dimension = int | str | None
"""A size; a symbol or None where any size goes."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A tensor as the file declares it, its row dimension included. `datatype` is the OIP name."""

    name: str
    datatype: str
    dimensions: tuple[Dimension, ...]


def fit_inputs(declared: Sequence[Declared], model: Model) -> tuple[Tensor, ...]:
    """The model's inputs in the order of the file, as given; raises `KernelError` 132 for any misfit."""
    given = {tensor.name: tensor for tensor in model.inputs}
    names = [argument.name for argument in declared]
    for missing in (name for name in names if name not in given):
        raise KernelError(
            MODEL_UNSUPPORTED, f"input {missing!r} is missing; the model takes {', '.join(names)}"
        )
    for extra in (name for name in given if name not in names):
        raise KernelError(MODEL_UNSUPPORTED, f"input {extra!r} is not one of the model's: {', '.join(names)}")
    tensors = tuple(given[name] for name in names)
    for argument, tensor in zip(declared, tensors, strict=True):
        _check(argument, tensor)
    if all(tensor.shared for tensor in tensors):
        raise KernelError(MODEL_UNSUPPORTED, "every input is shared: there is no row to run")
    return tensors


def _check(argument: Declared, tensor: Tensor) -> None:
    if tensor.datatype != argument.datatype:
        raise KernelError(
            MODEL_UNSUPPORTED,
            f"input {tensor.name!r} is given as {tensor.datatype}, the model takes {argument.datatype}",
        )
    fixed = [size if isinstance(size, int) else None for size in argument.dimensions]
    given = tensor.row_shape if tensor.shared else (None, *tensor.row_shape)
    if len(given) != len(fixed) or any(
        size is not None and want is not None and size != want
        for size, want in zip(given, fixed, strict=True)
    ):
        raise KernelError(
            MODEL_UNSUPPORTED,
            f"input {tensor.name!r} is given with shape {_shown(given)}, "
            f"the model takes {_shown(argument.dimensions)}",
        )
    if not tensor.shared and fixed[0] not in {None, 1}:
        raise KernelError(
            MODEL_UNSUPPORTED,
            f"input {tensor.name!r} takes {fixed[0]} rows at once; export the model with 1 or with a free "
            "first dimension, or mark the input as shared",
        )


def _shown(dimensions: Iterable[Dimension]) -> str:
    return "[" + ", ".join(str("any" if size is None else size) for size in dimensions) + "]"


def rows_are_free(declared: Sequence[Declared], inputs: Sequence[Tensor]) -> bool:
    """Whether every input that has rows takes any number of them."""
    return not any(
        isinstance(argument.dimensions[0], int)
        for argument, tensor in zip(declared, inputs, strict=True)
        if not tensor.shared
    )


def wanted_outputs(known: Sequence[str], model: Model) -> tuple[str, ...]:
    """The outputs to compute, all of them unless the model says which."""
    for unknown in (name for name in model.outputs if name not in known):
        raise KernelError(
            MODEL_UNSUPPORTED, f"output {unknown!r} is not one of the model's: {', '.join(known)}"
        )
    return model.outputs or tuple(known)
