"""What may stand under `[backends.options]` of a backend, out of the backend's own model."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from backends.registry import find

BOUNDS: Final = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
"""JSON Schema's names for them."""


def described_options(use: str) -> Iterator[str]:
    """Lines of TOML with the defaults, each with what it takes and what it does; raises `UnknownBackend`."""
    for name, field in find(use).Options.model_json_schema().get("properties", {}).items():
        default = json.dumps(field["default"]) if "default" in field else "..."
        yield f"{name} = {default}  # {_taken(field)}: {field.get('description', '')}"


def _taken(field: Mapping[str, Any]) -> str:
    """What a field of a JSON Schema takes, in a few words."""
    if "anyOf" in field:
        return " or ".join(map(_taken, field["anyOf"]))
    if "enum" in field:
        return " or ".join(map(json.dumps, field["enum"]))
    if "const" in field:
        return json.dumps(field["const"])
    bounds = [f"{sign} {field[key]}" for key, sign in BOUNDS.items() if key in field]
    return " ".join([str(field.get("type", "a table")), " and ".join(bounds)]).strip()
