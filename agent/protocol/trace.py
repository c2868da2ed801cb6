"""The trace that a task belongs to: `traceparent` of W3C Trace Context (w3.org/TR/trace-context), carried unchanged.

The agent takes no part in a trace: it hands back what the fleet has given it, so that the fleet's own spans can have
the task's events and results in them.
"""

import re
from typing import Final

import msgspec

from agent.protocol.messages import Carried, Task

FIELD: Final = "traceparent"
MAX_CHARS: Final = 256
"""Of a version that nobody knows yet, which may have more fields behind the known ones."""
SAMPLED: Final = 0x01
"""The one flag that a reader of version 00 may conclude from a higher one ("Versioning of traceparent")."""

_FIELDS: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)


def traceparent_of(parameters: object) -> str | None:
    """The valid `traceparent` among the `parameters` of a task, in version 00; None without one.

    What is malformed is ignored, as the recommendation has it: a trace that is cut costs nobody a task.
    """
    value = parameters.get(FIELD) if isinstance(parameters, dict) else None
    if not isinstance(value, str) or len(value) > MAX_CHARS:
        return None
    found = _FIELDS.fullmatch(value)
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    if version == "ff" or not trace_id.strip("0") or not parent_id.strip("0"):
        return None
    if version == "00":
        return value if more is None else None
    return f"00-{trace_id}-{parent_id}-{int(flags, 16) & SAMPLED:02x}"


def carried(traceparent: str | None) -> Carried | msgspec.UnsetType:
    """The `parameters` of an event or a result."""
    return msgspec.UNSET if traceparent is None else Carried(traceparent)


def untraced(task: Task) -> Task:
    """The task without its trace."""
    others = {name: value for name, value in task.parameters.items() if name != FIELD}
    return msgspec.structs.replace(task, parameters=others)
