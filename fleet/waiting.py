"""What a person is told who waits for an answer that does not come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, NoReturn

from agent.protocol.messages import Offline, State
from fleet.offer import OfferState
from fleet.vehicle import Vehicle

QUIET_S: Final = 5.0
"""How long nothing comes before somebody wonders."""
TOLD_MOST: Final = 8


async def explain(
    progress: Callable[[], int],
    why: Callable[[], Sequence[str]],
    say: Callable[[str], None],
    quiet_s: float = QUIET_S,
) -> NoReturn:
    """Say why, when nothing has come for `quiet_s`; the same is said once. Until cancelled."""
    told: Sequence[str] = ()
    while True:
        before = progress()
        await asyncio.sleep(quiet_s)
        if progress() == before and (lines := why()) != told:
            told = lines
            for line in lines:
                say(line)


@asynccontextmanager
async def explaining(
    progress: Callable[[], int], why: Callable[[], Sequence[str]], say: Callable[[str], None]
) -> AsyncIterator[None]:
    """See `explain`; until the block ends."""
    task = asyncio.create_task(explain(progress, why, say), name="explaining")
    try:
        yield
    finally:
        task.cancel()


def why_it_waits(vehicle: Vehicle) -> list[str]:
    """What keeps the tasks of one vehicle waiting: what it says of itself, and of the tasks that it gave back."""
    lines = [f"still waiting: {condition(vehicle)}"]
    ignored = sum(offer.state is OfferState.OFFERED for offer in vehicle.offers)
    if ignored and isinstance(vehicle.state, State):
        lines.append(
            f"it has not answered {ignored} tasks: what no key in its trust.task_keys_dir has signed it drops without "
            "a word (--key)"
        )
    paused = [offer for offer in vehicle.offers if offer.state is OfferState.PAUSED]
    lines += [f"task {offer.id} will be offered again: {offer.last_word}" for offer in paused[:TOLD_MOST]]
    return lines


def why_they_wait(vehicles: Iterable[Vehicle], waiting: int, where: str) -> list[str]:
    """What keeps a queue waiting. `waiting`: tasks without a vehicle; `where`: below which topics vehicles are heard."""
    known = sorted(vehicles, key=lambda vehicle: vehicle.id)
    if not known:
        return [f"still waiting: no vehicle has published anything below {where}; is --root their mqtt.root?"]
    more = [f"and {len(known) - TOLD_MOST} more vehicles"] if len(known) > TOLD_MOST else []
    return [
        f"still waiting, {waiting} tasks fit no vehicle now:" if waiting else "still waiting:",
        *(f"  {condition(vehicle)}" for vehicle in known[:TOLD_MOST]),
        *more,
    ]


def condition(vehicle: Vehicle) -> str:
    """A vehicle's own words about itself, in one line."""
    state = vehicle.state
    if state is None:
        return (
            f"nothing has been published below {vehicle.base}: the vehicle has not been there yet, or its id, "
            "region or root is another"
        )
    if isinstance(state, Offline):
        return f"{vehicle.id} is offline: the broker keeps its tasks until it is back"
    reasons = ", ".join(f"{blocker.code.value} {blocker.name}" for blocker in state.blockers)
    return f"{vehicle.id} is {state.mode.value}" + (
        f": {reasons}" if reasons else f", {len(state.open)} tasks open"
    )
