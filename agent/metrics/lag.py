"""How late the event loop is: what waits for it, such as leases and answers to the fleet, waits so much longer."""

import asyncio
from typing import Final

from agent.histogram import Histogram

EVERY_S: Final = 1.0
BOUNDS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


async def measure(lag: Histogram) -> None:
    """Ask to be woken once a second and count how much later that was; until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + EVERY_S
        await asyncio.sleep(EVERY_S)
        lag.observe(max(0.0, loop.time() - due_s))
