"""A task in a JSON file, as the wire contract writes it, for people who try a vehicle by hand."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.protocol import framing, strict_json, tensors
from agent.protocol.messages import Task
from agent.protocol.reasons import Refused
from fleet.work import Input, InputsAt, Terms

LEASE_S: Final = 60
EXPIRES_S: Final = 300
CHOSEN_LATER: Final = "any"
"""The audience of a task that has no vehicle yet."""
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


class TaskFileError(Exception):
    """A task file that cannot be used; one line for the person who has to mend it."""


@dataclass(frozen=True, slots=True)
class SubmittedTask:
    """A task as its file gives it."""

    path: Path
    task: Task
    inputs: list[Input]
    inputs_at: InputsAt | None

    def terms(self, now: dt.datetime) -> Terms:
        """The terms on which it is submitted at `now`."""
        task = self.task
        return Terms(
            lease_s=task.lease_s,
            expires_s=(task.expires_at - now).total_seconds(),
            outputs=task.outputs,
            rows=task.rows,
            priority=task.priority,
            limits=task.limits,
            residency=task.residency,
            backend=task.backend,
            parameters=task.parameters,
            inputs_at=self.inputs_at,
        )


def read_task(path: Path, vehicle: str | None, default_id: str, now: dt.datetime) -> SubmittedTask:
    """The task in `path`, for `vehicle`, or for whichever is chosen later; raises TaskFileError.

    What it leaves out of id, attempt, audience, issued_at, expires_at and lease_s is filled in; its
    `issued_at` does not count, each attempt has its own. Its tensors stand in the JSON as `data`, or at its `inputs_url`.
    """
    given: dict[str, Any] = {
        "id": default_id,
        "attempt": 1,
        "audience": vehicle or CHOSEN_LATER,
        "issued_at": now,
        "expires_at": now + dt.timedelta(seconds=EXPIRES_S),
        "lease_s": LEASE_S,
    }
    try:
        read: dict[str, Any] = strict_json.decode(_OBJECT, path.read_bytes())
        given |= read
        task, _ = framing.decode_task(msgspec.json.encode(given))
        _check(path, task, vehicle, now)
        tensors.rows_of(task)
        inputs, inputs_at = _inputs(task)
    except OSError as error:
        raise TaskFileError(f"{path}: {error.strerror}: give the path of a task file") from None
    except Refused as refused:
        raise TaskFileError(f"{path}: {refused}") from None
    return SubmittedTask(path, task, inputs, inputs_at)


def _inputs(task: Task) -> tuple[list[Input], InputsAt | None]:
    """The inputs that stand in the file, or where they stand; raises `Refused` (102)."""
    at = None
    raws: list[memoryview] | list[None] = [None] * len(task.inputs)
    if task.inputs_url is not None and task.inputs_sha256 is not None:
        at = InputsAt(task.inputs_url, task.inputs_sha256)
        tensors.tail_nbytes(task.inputs)
    else:
        raws = tensors.unpack(task.inputs, b"")
    inputs = [
        Input(tensor.name, tensor.datatype, tensor.shape, raw, shared=tensor.parameters.shared)
        for tensor, raw in zip(task.inputs, raws, strict=True)
    ]
    return inputs, at


def _check(path: Path, task: Task, vehicle: str | None, now: dt.datetime) -> None:
    if vehicle is None and task.audience != CHOSEN_LATER:
        raise TaskFileError(
            f"{path}: `audience` is {task.audience!r}, and the dispatcher chooses the vehicle: leave it out"
        )
    if vehicle is not None and task.audience != vehicle:
        raise TaskFileError(
            f"{path}: `audience` is {task.audience!r}, --vehicle is {vehicle!r}: leave it out or make them one"
        )
    if task.expires_at <= now:
        raise TaskFileError(
            f"{path}: `expires_at` {task.expires_at:%Y-%m-%dT%H:%M:%SZ} is over: leave it out"
        )
    at_url = task.inputs_url is not None
    wrong = next((tensor.name for tensor in task.inputs if (tensor.data is None) != at_url), None)
    if wrong is not None and at_url:
        raise TaskFileError(
            f"{path}: input {wrong!r}: stands at `inputs_url`, give it `binary_data_size` and no `data`"
        )
    if wrong is not None:
        raise TaskFileError(
            f"{path}: input {wrong!r}: a task file holds its inputs as `data`, or names an `inputs_url`"
        )
