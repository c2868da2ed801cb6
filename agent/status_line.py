"""The one line that `systemctl status` shows: what the agent does, and why not more."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from agent.notify import Notices
from agent.protocol.messages import Blocker, Mode
from agent.protocol.reasons import Reason

INTERVAL_S: Final = 1.0


def line(mode: Mode, blockers: Sequence[Blocker]) -> str:
    """Mode and first blocker, for example `blocked: unknown_signal (1000) Vehicle.Speed`. No value that drifts."""
    if not blockers:
        return mode.value
    first = blockers[0]
    if first.code is Reason.SETTLING:
        return f"{mode.value}: {first.limit}"
    about = f" {first.value}" if isinstance(first.value, str) else ""
    return f"{mode.value}: {first.name} ({first.code.value}){about}"


class StatusLine:
    """Tells the line when it may have changed: at once, and then at most once a second."""

    def __init__(self, notices: Notices, describe: Callable[[], str]) -> None:
        self._notices = notices
        self._describe = describe
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._changed = False
        self._closed = False

    def changed(self) -> None:
        """Look again, now or at the end of the running second."""
        self._changed = True
        if self._rest is None and not self._closed:
            self._tell()

    def close(self) -> None:
        """Tell nothing more."""
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()

    def _tell(self) -> None:
        self._rest = None
        if self._changed:
            self._changed = False
            self._notices.status(self._describe())
            self._rest = self._loop.call_later(INTERVAL_S, self._tell)
