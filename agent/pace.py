"""Keeps a backend inside its share of the power budget: runs are followed by rests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

LOOK_S: Final = 0.1
"""How often a resting backend looks whether its share has changed."""


class Pace:
    """`share` tells the part of the time, 0 to 1, that the backend may run now."""

    def __init__(self, share: Callable[[], float]) -> None:
        self._share = share
        self._alone = asyncio.Lock()
        self._rests_until_s = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a run may begin. With less than the whole time, runs go one by one, each with its rest."""
        if self._share() >= 1:
            yield
            return
        async with self._alone:
            await self._rested()
            began_s = _now_s()
            yield
            ran_s, share = _now_s() - began_s, self._share()
            self._rests_until_s = _now_s() + (ran_s * (1 / share - 1) if share else 0.0)

    async def _rested(self) -> None:
        while (share := self._share()) < 1:
            left_s = self._rests_until_s - _now_s() if share else LOOK_S
            if left_s <= 0:
                return
            await asyncio.sleep(min(left_s, LOOK_S))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
