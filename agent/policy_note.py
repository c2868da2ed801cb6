"""What of the policy's memory outlives the process: use of the traction battery, last starts, seen outside the region.

On disk the stamps are wall-clock times. What was stamped by a clock that could not be trusted counts as new.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from agent.guard import Guard
from agent.kept_notes import KeptNotes
from agent.policy.memory import Lasting
from agent.policy.pack_use import PackUse
from agent.store import Store
from firmware_shims.clock import Clock

NOTE: Final = "policy"
NS: Final = 1_000_000_000


class PolicyNote:
    """Writes the guard's memory down whenever it has changed. `wall` is None while that clock is not trusted."""

    def __init__(
        self,
        guard: Guard,
        store: Store,
        clock: Clock,
        wall: Callable[[], float | None],
        on_store_error: Callable[[BaseException], None],
    ) -> None:
        self._guard = guard
        self._notes = KeptNotes(store, on_store_error)
        self._clock = clock
        self._wall = wall
        self._kept = Lasting()

    async def restore(self) -> None:
        """Give the guard what an earlier start has kept. To be called when it is known whether `wall` can be right."""
        kept = await self._notes.read(NOTE, lambda body: read(body, self._clock(), self._wall()))
        if kept is not None:
            self._kept = kept
            self._guard.recall(kept)

    def look(self) -> None:
        """Write the note if there is something new in it."""
        if self._guard.lasting != self._kept:
            self._kept = self._guard.lasting
            self._notes.write({NOTE: written(self._kept, self._clock(), self._wall())})


class _Note(msgspec.Struct, array_like=True):
    taken: list[tuple[float | None, float]]
    counting: bool
    soc_pct: float | None
    starts: list[float | None]
    outside: bool = False


def written(lasting: Lasting, now_ns: int, unix_s: float | None) -> bytes:
    """The note; `now_ns` and `unix_s` are the same moment on the two clocks, None where the wall clock is not trusted."""

    def wall(stamp_ns: int) -> float | None:
        return None if unix_s is None else unix_s - (now_ns - stamp_ns) / NS

    use = lasting.pack_use
    note = _Note(
        taken=[(wall(stamp_ns), pct) for stamp_ns, pct in use.taken],
        counting=use.counting,
        soc_pct=use.soc_pct,
        starts=[wall(stamp_ns) for stamp_ns in lasting.starts_ns],
        outside=lasting.outside,
    )
    return msgspec.msgpack.encode(note)


def read(body: bytes, now_ns: int, unix_s: float | None) -> Lasting:
    """Undo `written` in another life. What lies in the future, by a clock that was set back, was just now."""
    note = msgspec.msgpack.decode(body, type=_Note)

    def stamp(wall_s: float | None) -> int:
        if wall_s is None or unix_s is None:
            return now_ns
        return now_ns - int(max(0.0, unix_s - wall_s) * NS)

    use = PackUse(tuple((stamp(wall_s), pct) for wall_s, pct in note.taken), note.counting, note.soc_pct)
    return Lasting(use, tuple(stamp(wall_s) for wall_s in note.starts), note.outside)
