"""Checks of what a backend refuses to load: it never runs anything but what was asked for."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

from backends.contract.subject import Subject, require
from backends.contract.trials import refusal
from backends.kernel import (
    BACKEND_UNUSABLE,
    MODEL_INVALID,
    MODEL_NOT_FOUND,
    MODEL_UNSUPPORTED,
    KernelError,
    Model,
)

NO_MODELS: Final = {"an empty file": b"", "zeros": bytes(4096), "text": b"this is no model\n" * 64}


def an_unknown_device_is_refused(subject: Subject) -> str:
    """Nothing falls back to another device."""
    error = refusal(lambda: subject.backend().load(subject.model, "no-such-device"))
    fix = f"raise KernelError({BACKEND_UNUSABLE}, ...) in load() for a device that probe() did not name"
    require(error is not None, "a program was loaded on a device that does not exist", fix)
    return f"refused: {error}"


def a_file_that_is_no_model_is_refused(subject: Subject) -> str:
    """The file comes from outside: what is not there or is no model is an answer, not a crash."""
    backend = subject.backend()
    device = subject.usable_device(backend)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model = replace(subject.model, path=path)
        if _refused_with(backend.load, model, device, "a file that is not there", {MODEL_NOT_FOUND}) is None:
            return "not checked: it loads a file that is not there, so it reads none"
        for what, content in NO_MODELS.items():
            path.write_bytes(content)
            error = _refused_with(backend.load, model, device, what, {MODEL_INVALID, MODEL_UNSUPPORTED})
            fix = f"raise KernelError({MODEL_INVALID}, ...) for bytes that are no model"
            require(error is not None, f"{what} was loaded as a model", fix)
    return f"refused: {', '.join(NO_MODELS)}, a file that is not there"


def _refused_with(load: object, model: Model, device: str, what: str, codes: set[int]) -> KernelError | None:
    error = refusal(lambda: load(model, device))  # type: ignore[operator] # Backend.load
    seen = f"{what} was refused with code {error.code if error else None}: {error}"
    require(error is None or error.code in codes, seen, f"take code {' or '.join(map(str, sorted(codes)))}")
    return error


def wrong_shapes_are_refused(subject: Subject) -> str:
    """Shapes are what was asked for, or code 132; a backend that takes any shape has to take these."""
    first, *others = subject.model.inputs
    wrong = replace(first, row_shape=(*first.row_shape, 3))
    model = replace(subject.model, inputs=(wrong, *others))
    backend = subject.backend()
    device = subject.usable_device(backend)
    try:
        program = backend.load(model, device)
    except KernelError as error:
        fix = (
            f"raise KernelError({MODEL_UNSUPPORTED}, ...) that names the input, its shape and what would fit"
        )
        seen = f"{list(wrong.row_shape)} was refused with code {error.code}: {error}"
        require(error.code == MODEL_UNSUPPORTED and wrong.name in error.text, seen, fix)
        return f"refused: {error}"
    program.close()
    require(
        wrong in program.inputs,
        f"asked for {wrong}, got {program.inputs}",
        "never load another shape than the one given",
    )
    return f"it takes any shape, {list(wrong.row_shape)} too"


def an_unknown_output_is_refused(subject: Subject) -> str:
    """An output that the model has not is code 132."""
    backend = subject.backend()
    device = subject.usable_device(backend)
    error = refusal(lambda: backend.load(replace(subject.model, outputs=("no_such_output",)), device))
    require(
        error is not None and error.code == MODEL_UNSUPPORTED,
        f"no_such_output: {error or 'was accepted'}",
        f"raise KernelError({MODEL_UNSUPPORTED}, ...) for a name in model.outputs that the model has not",
    )
    return f"refused: {error}"
