"""How a failure, a limit or the lack of a device ends a job."""

from collections.abc import Sequence
from typing import Final

from agent.job import Ending, Job
from agent.models import ModelUnavailableError
from agent.protocol.messages import TaskState
from agent.protocol.reasons import Reason, Refused
from agent.station import Station
from backends.kernel import KernelError
from backends.slots import ArenaFull

VEHICLE_SIDE: Final = 1000
Failure = KernelError | ModelUnavailableError | Refused | ArenaFull


def failure_of(error: Failure) -> Ending:
    """Failures of the vehicle's side give the task back; only the others are held against it."""
    if isinstance(error, ArenaFull):
        return Ending(TaskState.RELEASED, Reason.OUT_OF_MEMORY, str(error))
    code = Reason(error.code if isinstance(error, KernelError) else error.reason)
    state = TaskState.FAILED if code < VEHICLE_SIDE else TaskState.RELEASED
    return Ending(state, code, error.text)


def homeless(job: Job, stations: Sequence[Station]) -> Ending:
    """No backend takes it. Where one might if its device were well, it is not the task's fault."""
    wish = job.task.backend
    for station in stations:
        if wish in {None, station.name} and (trouble := station.trouble):
            text = f"backend {station.name}: {trouble}"
            return Ending(TaskState.RELEASED, Reason.BACKEND_UNUSABLE, text)
    text = f"no device here runs {job.task.model.format.value} models on {wish or 'any backend'}"
    return Ending(TaskState.FAILED, Reason.MODEL_UNSUPPORTED, text)


def limit_reached(job: Job) -> Ending | None:
    """The end of a job that has used more than its task allows; None while it has not."""
    limits = job.task.limits
    if limits.runtime_s is not None and job.device_s > limits.runtime_s:
        text = f"ran {job.device_s:.3g} s, limits.runtime_s is {limits.runtime_s:g} s"
        return Ending(TaskState.FAILED, Reason.LIMIT_RUNTIME, text)
    if limits.energy_j is not None and job.energy_j is None:
        text = f"limits.energy_j is {limits.energy_j:g} J, and no meter has measured the last rows"
        return Ending(TaskState.RELEASED, Reason.BACKEND_UNUSABLE, text)
    if limits.energy_j is not None and job.energy_j is not None and job.energy_j > limits.energy_j:
        text = f"used {job.energy_j:.3g} J, limits.energy_j is {limits.energy_j:g} J"
        return Ending(TaskState.FAILED, Reason.LIMIT_ENERGY, text)
    return None
