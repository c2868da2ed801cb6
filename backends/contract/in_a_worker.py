"""Checks in the place where a backend really runs: a process of its own, its tensors in shared memory."""

import asyncio
from typing import TYPE_CHECKING

from backends.contract.subject import Broken, Subject, require
from backends.contract.trials import most_rows, run, some_inputs
from backends.limits import Limits
from backends.process import WorkerDied, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.kernel import Array


def a_worker_gives_the_same(subject: Subject) -> str:
    """In a worker process, through shared memory and under its limits, a run gives what it gives here."""
    with subject.program() as program:
        rows = most_rows(program)
        inputs = some_inputs(program.inputs, rows)
        here = run(program, inputs, rows)
    try:
        there = asyncio.run(_outputs_of_a_worker(subject, inputs, rows))
    except WorkerDied as death:
        fix = "find out what ends it: a worker has less memory, no network, and sees no files but its own"
        raise Broken(death.text, fix) from death
    for name, array in here.items():
        fix = "arrays of a worker lie in shared memory: do not keep them, do not replace them"
        require(array.tobytes() == there[name], f"output {name!r} of the worker differs", fix)
    return f"{rows} rows, {', '.join(here)}"


async def _outputs_of_a_worker(
    subject: Subject, inputs: "Mapping[str, Array]", rows: int
) -> dict[str, bytes]:
    limits = Limits(model_folders=(str(subject.model.path.parent),))
    worker = WorkerProcess.start(subject.use, subject.options, limits=limits)
    try:
        program = await worker.load(subject.model, subject.device)
        with worker.slot(program, rows) as slot:
            for tensor, view in zip(program.inputs, slot.inputs, strict=True):
                view[:] = inputs[tensor.name].tobytes()
            await worker.run(slot)
            return {
                tensor.name: bytes(view) for tensor, view in zip(program.outputs, slot.outputs, strict=True)
            }
    finally:
        await worker.stop()
