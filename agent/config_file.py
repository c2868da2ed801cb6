"""Reads a TOML file and the environment into a model, and says in one line each what is wrong with them."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

PREFIX: Final = "PARKWATT_"
NEST: Final = "__"
VALUE_SHOWN_CHARS: Final = 80

Location = tuple[int | str, ...]
M = TypeVar("M", bound=BaseModel)


class ConfigError(Exception):
    """The configuration cannot be used. `problems` has a line for each fault: where, value, limit, what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class OptionsError(ValueError):
    """Options that a driver's own model refused; raised inside the validation of the section around them."""

    def __init__(self, model: type[BaseModel], error: ValidationError) -> None:
        super().__init__(str(error))
        self.model = model
        self.error = error


def read(path: Path, environ: Mapping[str, str], model: type[M]) -> M:
    """The file at `path`, overridden by `PARKWATT_SECTION__KEY` of `environ`, as a `model`; else `ConfigError`."""
    overrides = from_environment(environ, model)
    data = merged(toml(path), overrides.data)
    faults: list[str] = []
    try:
        settings = model.model_validate(data)
    except ValidationError as error:
        faults = [f"{overrides.origin(loc) or path}: {text}" for loc, text in explained(error, model)]
    if problems := [*overrides.problems, *faults]:
        raise ConfigError(problems)
    return settings


def toml(path: Path) -> dict[str, Any]:
    """The parsed file."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}; give an existing file"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: not valid TOML: {error}; correct that line"]) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}: not UTF-8 at line {line}; save it as UTF-8"]) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: tables or arrays are nested too deeply; flatten them"]) from error


@dataclass(slots=True)
class Overrides:
    """What the environment sets: nested tables of strings, the variables they come from, and what is wrong."""

    data: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def origin(self, place: Location) -> str:
        """The variable that set the value at `place` or a table around it; empty for none."""
        for depth in range(len(place), 0, -1):
            if name := self.names.get(NEST.join(map(str, place[:depth]))):
                return f"environment {name}"
        return ""


def from_environment(environ: Mapping[str, str], model: type[BaseModel]) -> Overrides:
    """What the variables `PARKWATT_SECTION__KEY` set."""
    found = Overrides()
    ours = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX)}
    if not ours:
        return found
    # Costs 20 ms and 4.7 MiB of resident memory: only a car that overrides something pays for it.
    from pydantic_settings import EnvSettingsSource, SettingsError  # noqa: PLC0415

    # It asks its class for `model_config` and `model_fields` only. A plain model never reads the environment
    # by itself when it is constructed, so the demo does not depend on the shell that it is started from.
    source = EnvSettingsSource(cast("Any", model), env_prefix=PREFIX, env_nested_delimiter=NEST)
    for name, value in ours.items():
        key = name[len(PREFIX) :].lower()
        section = model.model_fields.get(key.split(NEST)[0])
        if section is None:
            fix = f"an override is {PREFIX}SECTION{NEST}KEY; correct or unset it"
            found.problems.append(f"environment {name}: no such section; {fix}")
        elif get_args(section.annotation):
            fix = "unset it and edit the file"
            found.problems.append(f"environment {name}: an array of tables cannot be overridden; {fix}")
        else:
            source.env_vars = {name.lower(): value}
            try:
                found.data = merged(found.data, source())
            except SettingsError:
                fix = "give a JSON value, for example [1, 2]"
                found.problems.append(f"environment {name} = {value!r}: not JSON; {fix}")
            found.names[key] = name
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, table by table."""
    result = dict(below)
    for key, value in above.items():
        match result.get(key), value:
            case dict() as under, dict():
                result[key] = merged(under, value)
            case _:
                result[key] = value
    return result


def explained(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[Location, str]]:
    """Each fault as its place and one line: key, value, what is allowed."""
    for fault in error.errors(include_url=False):
        place: Location = fault["loc"]
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, OptionsError):
            for below, text in explained(cause.error, cause.model):
                yield place + below, f"{dotted(place)}.{text}"
            continue
        match fault["type"]:
            case "extra_forbidden":
                text = f"{dotted(place)}: unknown key; {_did_you_mean(str(place[-1]), _model_at(model, place[:-1]))}"
            case "missing":
                text = f"{dotted(place)}: missing; add it"
            case "value_error":
                text = f"{_with_value(place, fault['input'])}: {cause}"
            case _:
                text = (
                    f"{_with_value(place, fault['input'])}: {fault['msg'].replace('Input should', 'should')}"
                )
        yield place, text


def dotted(place: Location) -> str:
    """`("backends", 0, "use")` as `backends[0].use`, counted from 0."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_printable(part)}" for part in place)
    return text.removeprefix(".")


def _printable(key: str) -> str:
    return key if key.isprintable() else repr(key)


def _with_value(place: Location, value: object) -> str:
    """Key and value; a whole table is not repeated."""
    match value:
        case Mapping() | BaseModel() | [Mapping() | BaseModel(), *_]:
            return dotted(place)
    shown = repr(value)
    if len(shown) > VALUE_SHOWN_CHARS:
        shown = shown[:VALUE_SHOWN_CHARS] + "…"
    return f"{dotted(place)} = {shown}"


def _did_you_mean(key: str, model: type[BaseModel] | None) -> str:
    known = list(model.model_fields) if model else []
    if near := get_close_matches(key, known):
        # "prot" is as near to "root" as to "port", and swapped letters are the commoner slip.
        best = min(near, key=lambda name: sorted(name) != sorted(key))
        return f"did you mean {best!r}?"
    return f"remove it; known: {', '.join(known)}"


def _model_at(model: type[BaseModel], place: Location) -> type[BaseModel] | None:
    """The model that describes the table at `place`."""
    found: type[BaseModel] | None = model
    for part in place:
        if found is None or isinstance(part, int):
            continue
        annotation = found.model_fields[part].annotation
        inner = (annotation, *get_args(annotation))
        found = next((kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return found
