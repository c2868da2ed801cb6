"""Which vehicle gets a task: decided from what the vehicles publish. Pure: no clock, no loop.

A vehicle can be given a task when all of this holds:
 1. it is online, and its mode is ready, working, settling or preempting: not blocked, not draining;
 2. the task's data may be where it is: `residency` names its region or its country, or nothing;
 3. a usable backend of it runs the model's format, and is the one that the task names, if it names one; one
    that has not been probed yet (it has no device) may;
 4. it has watts to spend: `budget_w` is above zero;
 5. it is expected to stay for as long as one row is known to take, which is done whole or not at all; where either
    is unknown, that decides nothing;
 6. it has fewer tasks of this fleet than it is given at a time, and it is not held (`Car.held_until_ns`).
Of several the best, the first difference decides:
 1. ready or working, rather than settling or preempting;
 2. one that has not given this task back before;
 3. one that has the model in memory;
 4. one whose backend has been probed;
 5. one that is expected to stay for the whole lease, and for as long as all the rows are known to take;
 6. the one with the fewest open tasks, whosever they are;
 7. the one with more watts;
 8. the first by its id.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from agent.protocol.messages import BackendState, Mode, ModelFormat, Offline, State, Task

AT_WORK: Final = frozenset({Mode.READY, Mode.WORKING})
SOON: Final = frozenset({Mode.SETTLING, Mode.PREEMPTING})
OPEN_TO_WORK: Final = AT_WORK | SOON


@dataclass(frozen=True, slots=True)
class Needs:
    """What a task asks of a vehicle. Tasks of equal needs can be given to the same vehicles."""

    model_sha256: str
    model_format: ModelFormat
    backend: str | None
    residency: frozenset[str] | None
    lease_s: float

    @classmethod
    def of(cls, task: Task) -> "Needs":
        """The needs of a task, whatever its rows."""
        return cls(
            task.model.sha256,
            task.model.format,
            task.backend,
            None if task.residency is None else frozenset(task.residency),
            task.lease_s,
        )


@dataclass(frozen=True, slots=True)
class Car:
    """A vehicle as placement sees it. `given`: open tasks that it has from us, of at most `room`."""

    id: str
    state: State | Offline | None
    given: int
    room: int
    held_until_ns: int = 0
    """It has refused work and is not asked again before (on the clock that gives `now_ns`)."""


def choose(
    needs: Needs,
    cars: Iterable[Car],
    now_ns: int,
    *,
    rows: int,
    row_s: float | None,
    given_back_by: Collection[str] = (),
) -> str | None:
    """The id of the best vehicle for so many rows, or None when they fit none now.

    `row_s`: measured seconds of one row of this model, None before the first.
    """
    stay_s = max(needs.lease_s, rows * (row_s or 0.0))
    ranked = [
        rank(needs, car, car.state, stay_s, given_back_by)
        for car in cars
        if isinstance(car.state, State) and has_room(car, now_ns) and fits(needs, car.state, row_s)
    ]
    return min(ranked)[-1] if ranked else None


def has_room(car: Car, now_ns: int) -> bool:
    """Whether it can be given anything at all."""
    return car.given < car.room and now_ns >= car.held_until_ns


def fits(needs: Needs, state: State, row_s: float | None) -> bool:
    """Whether a vehicle in this state can do any of the work."""
    return (
        state.mode in OPEN_TO_WORK
        and (needs.residency is None or not needs.residency.isdisjoint({state.region, state.region[:2]}))
        and any(runs(needs, backend) or may_run(needs, backend) for backend in state.backends)
        and state.budget_w > 0
        and (row_s is None or state.expected_s is None or state.expected_s >= row_s)
    )


def runs(needs: Needs, backend: BackendState) -> bool:
    """Whether this backend has been found to run the model's format."""
    return (
        backend.usable
        and needs.model_format.value in backend.formats
        and needs.backend in (None, backend.name)
    )


def may_run(needs: Needs, backend: BackendState) -> bool:
    """Whether it has not been probed yet: an agent starts no worker before there is work."""
    return not backend.device and needs.backend in (None, backend.name)


Rank = tuple[bool, bool, bool, bool, bool, int, float, str]


def rank(needs: Needs, car: Car, state: State, stay_s: float, given_back_by: Collection[str]) -> Rank:
    """Its place among those that fit, smallest first; the order of the module's docstring."""
    return (
        state.mode not in AT_WORK,
        car.id in given_back_by,
        needs.model_sha256 not in state.models,
        not any(runs(needs, backend) for backend in state.backends),
        state.expected_s is None or state.expected_s < stay_s,
        max(car.given, len(state.open)),
        -state.budget_w,
        car.id,
    )
