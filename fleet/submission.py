"""What `parkwatt fleet submit` does: tasks from files, a line for each piece of an answer, a summary."""

import asyncio
import secrets
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from agent.link import LinkOptions, PublishRefused
from agent.protocol import tensors
from agent.protocol.keys import load_private_key
from agent.protocol.messages import EnergySource, Usage
from agent.protocol.reasons import Reason
from fleet.answer import Output, Rows, TaskFailed
from fleet.answer_file import write_answer
from fleet.client import FleetClient, utc_now
from fleet.ids import RANDOM_BITS, sortable_id
from fleet.task_file import SubmittedTask, read_task
from fleet.vehicle import Vehicle
from fleet.waiting import explaining, why_it_waits

PREVIEW_ITEMS: Final = 6
AGAIN: Final = {
    Reason.REPLAYED: ": this vehicle has had this task, leave `id` out of the file or raise `attempt`",
    Reason.STALE_ATTEMPT: ": raise `attempt` in the file, or leave `id` out",
}


class SubmissionError(Exception):
    """Why nothing could be submitted; one line."""


@dataclass(slots=True, kw_only=True)
class Submission:
    """Tasks for one vehicle. `options` need no client id: it is made here."""

    options: LinkOptions
    root: str
    vehicle: str
    region: str
    key_path: Path | None
    out: Path | None
    wait_s: float
    say: Callable[[str], None]
    complain: Callable[[str], None]
    rows: int = 0
    joules: dict[EnergySource, float] = field(default_factory=dict)

    async def run(self, paths: Sequence[Path]) -> bool:
        """Submit every file and wait; whether all are done. Raises what a wrong file or option is."""
        begun_s = time.monotonic()
        key = load_private_key(self.key_path) if self.key_path else None
        submitted = [read_task(path, self.vehicle, new_id(), utc_now()) for path in paths]
        check_ids(submitted)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
        client = FleetClient(
            replace(self.options, client_id=f"submit-{new_id()}"),
            root=self.root,
            vehicles=[(self.vehicle, self.region)],
            key=key,
            kid=self.key_path.stem if self.key_path else "",
        )
        async with client as fleet:
            await fleet.until_up(self.wait_s)
            vehicle = fleet.vehicle(self.vehicle, self.region)
            async with explaining(lambda: self.rows, lambda: why_it_waits(vehicle), self.complain):
                done = await asyncio.gather(*(self._one(vehicle, task) for task in submitted))
        self.say(
            f"{sum(done)} of {len(done)} tasks done, {self.rows} rows, {time.monotonic() - begun_s:.1f} s, "
            f"{_energy(self.joules)}"
        )
        return all(done)

    async def _one(self, vehicle: Vehicle, submitted: SubmittedTask) -> bool:
        task = submitted.task
        offer = vehicle.offer(
            task.model, submitted.inputs, id=task.id, attempt=task.attempt, **submitted.terms(utc_now())
        )
        total = offer.delivery.coverage
        try:
            async for rows in offer:
                self.rows += rows.end - rows.begin
                self.say(
                    f"{task.id} rows {rows.begin}-{rows.end} of {total.begin}-{total.end} {_cost(rows.usage)}"
                )
                for name, output in rows.outputs.items():
                    self.say(f"  {name} {_preview(output, rows)}")
            answer = await offer.answer()
        except TaskFailed as failed:
            text = f"{failed}{AGAIN.get(failed.code, '')} ({failed.rows_done} of {total.rows} rows done)"
            self.complain(f"{submitted.path}: task {task.id}: {text}")
            return False
        except PublishRefused as refused:
            self.complain(f"{submitted.path}: task {task.id}: {refused}: let this user publish there")
            return False
        finally:
            offer.cancel()
        for source, joules in answer.energy_j.items():
            self.joules[source] = self.joules.get(source, 0.0) + joules
        if self.out is not None:
            write_answer(self.out, task.id, task.model, answer)
        return True


def new_id() -> str:
    """A fresh task id."""
    return sortable_id(utc_now(), secrets.randbits(RANDOM_BITS))


def check_ids(submitted: Sequence[SubmittedTask]) -> None:
    """Raise SubmissionError where two files have the same id."""
    paths: dict[str, Path] = {}
    for one in submitted:
        first = paths.setdefault(one.task.id, one.path)
        if first is not one.path:
            raise SubmissionError(f"{one.path}: `id` {one.task.id!r} is that of {first} too: leave one out")


def _cost(usage: Usage) -> str:
    joules = {} if usage.energy_j is None else {usage.energy_source: usage.energy_j}
    return f"on {usage.backend} {usage.device}, {usage.device_s * 1e3:.1f} ms, {_energy(joules)}"


def _energy(joules: dict[EnergySource, float]) -> str:
    return ", ".join(f"{value:.3g} J ({source.value})" for source, value in joules.items()) or "no meter"


def _preview(output: Output, rows: Rows) -> str:
    items = len(output.data) // tensors.ITEM_BYTES[output.datatype]
    shown = min(items, PREVIEW_ITEMS)
    values = struct.unpack_from(f"<{shown}{tensors.STRUCT_CODE[output.datatype]}", output.data)
    shape = [rows.end - rows.begin, *output.row_shape]
    more = " ..." if items > shown else ""
    return f"{output.datatype.value} {shape}: {' '.join(f'{value:.6g}' for value in values)}{more}"
