"""Options of a shim, `[signals.options]`, against the type that describes them."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def read(options: Mapping[str, Any], kind: type[T]) -> T:
    """The options as a `kind` (a msgspec Struct); ValueError with one line that names the option."""
    try:
        return msgspec.convert(options, kind)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
        raise ValueError(f"options{place.rstrip('`')}: {problem}") from error


def refuse_map(map_name: str | None, why: str) -> None:
    """ValueError when a map is given to a source that has no use for one."""
    if map_name is not None:
        raise ValueError(f"map = {map_name!r}: {why}; remove it")
