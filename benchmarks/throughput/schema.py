"""The published form of results.json: `python -m benchmarks.throughput.schema docs/benchmarks`."""

import inspect
import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.throughput.results import SCHEMA, Results

FILE: Final = "results.schema.json"
TEXTS: Final = frozenset({"description", "title"})


def document() -> dict[str, Any]:
    """JSON Schema (2020-12) of results.json."""
    (reference,), components = msgspec.json.schema_components([Results], ref_template="#/$defs/{name}")
    for component in components.values():
        if "description" in component:
            component["description"] = inspect.cleandoc(component["description"])
    components[Results.__name__]["properties"]["schema"] = {"const": SCHEMA}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:parkwatt:benchmarks:results:{SCHEMA}",
        "title": "parkwatt benchmark results",
        **reference,
        "$defs": components,
    }


def text() -> str:
    """As the file has it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    (Path(sys.argv[1]) / FILE).write_text(text())
