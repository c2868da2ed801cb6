"""Which settings of a backend are tried, and which are not, and why."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ValidationError

SEARCH: Final = "search"
"""A backend of another package names what to try of an option: `Field(json_schema_extra={"search": [1, 2, 4]})`."""
THREADS, SPINNING, CORES, PROVIDER = "threads", "spinning", "cores", "provider"
"""The options of this name are searched in every backend that has them."""
ALTER_NUMBERS: Final = frozenset({"tf32", "fp16", "optimisation"})
"""With these a model gives other numbers: whoever sends the work decides about them, not a search for joules."""
SLOWER_CORES: Final = (
    "cores: those of slower kinds, because processor seconds do not tell a frugal core from a fast one; "
    "with a meter they are tried"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """Options, and how many rows run together. What is not named is the backend's default."""

    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1

    def __str__(self) -> str:
        return ", ".join(
            [*(f"{name} {json.dumps(value)}" for name, value in self.options.items()), f"batch {self.batch}"]
        )


@dataclass(frozen=True, slots=True)
class Space:
    """Options to try, as the backend takes them; `left_out` says what is not tried, and why."""

    options: tuple[Mapping[str, Any], ...]
    left_out: tuple[str, ...]


def space(
    kind: type[BaseModel], cores: Sequence[Sequence[int]], metered: bool, held: Mapping[str, Any]
) -> Space:
    """What to try of a backend whose options are `kind`, on cores of these kinds, the fastest first.

    `held` options are not searched. Only a meter can compare cores of different kinds.
    """
    usable = cores if metered else cores[:1]
    properties = kind.model_json_schema().get("properties", {})
    free = {name: schema for name, schema in properties.items() if name not in held}
    everywhere = sorted(itertools.chain(*usable))
    axes = {
        name: values for name, schema in free.items() if (values := _values(name, schema, len(everywhere)))
    }
    tried: list[Mapping[str, Any]] = []
    for combination in itertools.product(*axes.values()):
        options = {**held, **dict(zip(axes, combination, strict=True))}
        tried.append(options)
        if CORES in free:
            tried.extend({**options, CORES: pinned} for pinned in _pinned(options.get(THREADS, 1), usable))
    left_out = [_why_left_out(name, held) for name in properties if name not in axes and name != CORES]
    if len(usable) < len(cores):
        left_out.append(SLOWER_CORES)
    return Space(tuple(options for options in tried if _makes_sense(kind, options)), tuple(left_out))


def batches(largest: int | None, most: int) -> tuple[int, ...]:
    """Powers of two that a program takes, up to `most`."""
    return tuple(itertools.takewhile(lambda rows: rows <= min(largest or most, most), _powers_of_two()))


def _values(name: str, schema: Mapping[str, Any], cores: int) -> Sequence[Any]:
    """What to try of an option; nothing where it is not searched."""
    if SEARCH in schema:
        return tuple(schema[SEARCH])
    if name in ALTER_NUMBERS:
        return ()
    if name == THREADS:
        powers = itertools.takewhile(lambda threads: threads < cores, _powers_of_two())
        return (*powers, cores)
    if name == SPINNING:
        return (False, True)
    return tuple(schema.get("enum", ())) if name == PROVIDER else ()


def _pinned(threads: int, kinds: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """A core for each thread, of each kind that has so many; not where that would be all cores there are."""
    for kind in kinds:
        if threads < len(kind) or (threads == len(kind) and len(kinds) > 1):
            yield list(kind[:threads])


def _makes_sense(kind: type[BaseModel], options: Mapping[str, Any]) -> bool:
    if options.get(SPINNING) and options.get(THREADS, 1) == 1:
        return False  # one thread has no other that could spin
    try:
        kind.model_validate(dict(options))
    except ValidationError:  # the backend has no such combination
        return False
    return True


def _why_left_out(name: str, held: Mapping[str, Any]) -> str:
    if name in held:
        return f"{name}: held at {json.dumps(held[name])}, as asked for"
    return (
        f"{name}: the default stays{', because others give other numbers' if name in ALTER_NUMBERS else ''}"
    )


def _powers_of_two() -> Iterator[int]:
    return (1 << exponent for exponent in itertools.count())
