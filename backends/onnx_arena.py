"""Bounds the memory that onnxruntime keeps for intermediate results.

A session's own arena grows as it likes and cannot be bounded. One that is registered with onnxruntime's
environment can, and a session that is made after that takes it and keeps it until it is closed. So each
session gets an arena of its own by registering a fresh one just before: the next one replaces it in the
environment only.
"""

from typing import Any, Final

MIB: Final = 1 << 20
UNUSED_BYTES: Final = MIB
SESSION_ENTRIES: Final = {
    "session.use_env_allocators": "1",
    # weights stay outside of the arena: their size is the model's, and they go as soon as the session goes
    "session.use_device_allocator_for_initializers": "1",
}
"""What a session needs to take the arena."""


def register(runtime: Any, limit_bytes: int) -> None:
    """Have the next session keep at most `limit_bytes`; a run that needs more fails for want of memory."""
    memory = runtime.OrtMemoryInfo(
        "Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT
    )
    runtime.create_and_register_allocator(memory, runtime.OrtArenaCfg({"max_mem": limit_bytes}))


def let_go(runtime: Any) -> None:
    """Free the arena of the last session, which the environment would otherwise keep after its end."""
    register(runtime, UNUSED_BYTES)
