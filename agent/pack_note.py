"""Keeps over a restart what work has taken from the traction battery: on disk the stamps are wall-clock times."""

from typing import Final

import msgspec

from agent.policy.pack_use import PackUse

NOTE: Final = "pack_use"
NS: Final = 1_000_000_000


class _Note(msgspec.Struct, array_like=True):
    taken: list[tuple[float, float]]
    counting: bool
    soc_pct: float | None


def written(use: PackUse, now_ns: int, unix_s: float) -> bytes:
    """The note; `now_ns` and `unix_s` are the same moment on the two clocks."""
    taken = [(unix_s - (now_ns - stamp_ns) / NS, pct) for stamp_ns, pct in use.taken]
    return msgspec.msgpack.encode(_Note(taken, use.counting, use.soc_pct))


def read(body: bytes, now_ns: int, unix_s: float) -> PackUse:
    """Undo `written` in another life. What lies in the future, by a clock that was set back, was taken now."""
    note = msgspec.msgpack.decode(body, type=_Note)
    taken = ((now_ns - int(max(0.0, unix_s - stamp_s) * NS), pct) for stamp_s, pct in note.taken)
    return PackUse(tuple(taken), note.counting, note.soc_pct)
