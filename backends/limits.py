"""What a worker may take from the car, as the supervisor says it and as it turned out on this machine."""

from typing import Final

import msgspec

MEMORY_BYTES: Final = 4 * 1024**3
START_S: Final = 60.0
"""A first import of a large runtime from flash takes tens of seconds; longer means that it hangs."""
LOAD_S: Final = 60.0
"""A model of hundreds of megabytes takes seconds; one that is compiled for its device may take minutes."""


class Limits(msgspec.Struct, frozen=True):
    """The bounds of one worker. The folders exist before it starts: others cannot be added later."""

    model_folders: tuple[str, ...] = ()
    memory_bytes: int = MEMORY_BYTES
    """Beyond what the imported runtime takes."""
    load_s: float = LOAD_S


class Limit(msgspec.Struct, frozen=True):
    """A limit of a worker; `why` says why it could not be had here, empty when it holds."""

    name: str
    why: str = ""


def described(limits: tuple[Limit, ...]) -> str:
    """One line: what holds, then what does not."""
    held = ", ".join(limit.name for limit in limits if not limit.why)
    lacking = "; ".join(f"{limit.name}: {limit.why}" for limit in limits if limit.why)
    return f"{held}; not held here: {lacking}" if lacking else held
