"""The owner, who comes back once in the middle: opens the driver's door, closes it, and goes away again."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.demo.stage import Stage
from agent.preemption import Preemption

DOOR_OPEN_S: Final = 2.0
POLL_S: Final = 0.005
CUT_WITHIN_S: Final = 1.0
"""How long the owner waits for a moment at which a task has some of its rows done, and not all."""
GONE_WITHIN_S: Final = 5.0


@dataclass(slots=True)
class Visit:
    """What the visit did. Seconds of the record; None for what has not happened."""

    opened_s: float | None = None
    preemption: Preemption | None = None
    rows_when_gone: int | None = None
    """Rows done when the worker was gone."""
    closed_s: float | None = None
    rows_when_closed: int | None = None
    resumed_s: float | None = None
    """When the first row after the visit was done, with nobody having asked for it again."""


async def come_back(stage: Stage, half_way: Callable[[], bool], visit: Visit) -> None:
    """Wait until `half_way`, then visit; fills in `visit` as it goes."""
    executor = stage.service.executor
    await _until(lambda: executor.rows_done)
    stage.tell("the car has settled and works: the first rows are done")
    await _until(half_way)
    await _until(
        lambda: any(0 < job.done < job.asked for job in executor.jobs.values()), within_s=CUT_WITHIN_S
    )
    visit.opened_s = stage.record.now_s
    stage.tell("the owner opens the driver's door")
    # As a source does it: from a thread of its own, which sends the kill itself.
    await asyncio.to_thread(stage.car.open_door)
    await _until(lambda: stage.service.preemptions.done and not executor.running, within_s=GONE_WITHIN_S)
    visit.rows_when_gone = executor.rows_done
    visit.preemption = next(iter(stage.service.preemptions.done), None)
    if visit.preemption is not None:
        stage.tell(
            f"worker killed after {visit.preemption.kill_ms:.2f} ms,"
            f" gone with its memory after {visit.preemption.silent_ms:.1f} ms"
        )
    await asyncio.sleep(visit.opened_s + DOOR_OPEN_S - stage.record.now_s)
    visit.rows_when_closed = executor.rows_done
    visit.closed_s = stage.record.now_s
    stage.tell("the owner closes the door and goes")
    await asyncio.to_thread(stage.car.close_door)
    await _until(lambda: executor.rows_done > (visit.rows_when_closed or 0))
    visit.resumed_s = stage.record.now_s
    stage.tell(f"work goes on by itself, {visit.resumed_s - visit.closed_s:.1f} s after that")


async def _until(holds: Callable[[], object], *, within_s: float | None = None) -> None:
    """Wait until it holds, or for so long."""
    try:
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - the parts of the service that are watched announce nothing
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        return
