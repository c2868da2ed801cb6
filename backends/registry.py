"""Backends by name: the built-in ones, those of other packages, and MODULE:CLASS."""

import importlib
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final, cast

from pydantic import BaseModel

from backends.kernel import Backend

ENTRY_POINTS: Final = "parkwatt.backends"
BUILT_IN: Final = {
    "cpu": "backends.cpu:Cpu",
    "fault": "backends.fault:Fault",
    "fsd": "backends.fsd:Fsd",
    "null": "backends.null:Null",
    "nvidia": "backends.nvidia:Nvidia",
    "tflite": "backends.tflite:Tflite",
}


class UnknownBackend(LookupError):  # noqa: N818 - reads as what it is
    """No such backend, or it cannot be imported; the text says which there are."""


def known() -> list[str]:
    """The names that `find` takes, without MODULE:CLASS."""
    return sorted({*BUILT_IN, *(point.name for point in metadata.entry_points(group=ENTRY_POINTS))})


def find(use: str) -> type[Backend]:
    """The backend class behind a name or MODULE:CLASS. Imports its module, which imports no runtime."""
    target = BUILT_IN.get(use) or _target(use)
    module_name, _, class_name = target.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UnknownBackend(f"backend {use!r} ({target}) cannot be imported: {error}") from error
    lacking = [name for name in ("name", "Options", "probe", "load") if not hasattr(found, name)]
    if lacking:
        raise UnknownBackend(f"backend {use!r} ({target}) is no backend: it has no {', '.join(lacking)}")
    return cast("type[Backend]", found)


def _target(use: str) -> str:
    if ":" in use:
        return use
    points = metadata.entry_points(group=ENTRY_POINTS, name=use)
    if not points:
        raise UnknownBackend(f"backend {use!r} is not known: take {', '.join(known())} or MODULE:CLASS")
    return next(iter(points)).value


def validate_options(use: str, options: Mapping[str, Any]) -> BaseModel:
    """The options as `use` understands them; raises `UnknownBackend` or pydantic's ValidationError."""
    return find(use).Options.model_validate(dict(options))
