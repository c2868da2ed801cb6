"""One row: a model on a backend in a scenario, from the load of both sides to the figures."""

import contextlib
from dataclasses import replace
from typing import Any, Final

from msgspec import structs

from backends.fsd import EMULATOR
from backends.kernel import KernelError
from backends.process import WorkerDied
from backends.slots import ArenaFull
from benchmarks.bare_runtime import Subject as BareSubject
from benchmarks.throughput.agreement import disagreements
from benchmarks.throughput.asked import Asked, Means, NotMeasuredError, all_options, not_measured
from benchmarks.throughput.bare_side import BareEndedError, bare_side
from benchmarks.throughput.catalogue import Subject
from benchmarks.throughput.joules import Metered, account
from benchmarks.throughput.results import Row
from benchmarks.throughput.scenarios import meets_the_rules
from benchmarks.throughput.settling import figures_of, marks_of
from benchmarks.throughput.side_by_side import SideBySide
from benchmarks.throughput.turns import Pair
from benchmarks.throughput.worker_side import BackendChoice, DeviceMissingError, WorkerSide, worker_side

BARE_FORMATS: Final = {"cpu": "onnx", "tflite": "tflite"}
"""Backends whose runtime a script can use without us; the others run in the caller's process instead."""
FSD: Final = "fsd"
CALIBRATED: Final = "what is in floats is quantised for the NPU, calibrated with its own inputs"
EMULATED: Final = "emulated: its pace is this computer's, its joules are the chip's by a model"


async def measured(asked: Asked, subject: Subject, means: Means) -> Row:
    """Measure it. What goes wrong with this row stands in it as `failed`."""
    row = structs.replace(not_measured(asked, ""), model=subject.used)
    choice = _calibrated(asked.choice, subject)
    try:
        async with worker_side(subject.model, subject.samples.arrays, choice) as ours:
            batch = _batch(asked, ours)
            row = structs.replace(
                row,
                backend=structs.replace(row.backend, version=ours.version, device=ours.device),
                scenario=structs.replace(row.scenario, batch=batch),
            )
            bare = _bare_subject(subject, choice, ours)
            return await _beside(bare, row, asked, ours, means)
    except KernelError as error:
        return structs.replace(row, failed=f"{choice.use} refuses it: {error.text} ({error.code})")
    except WorkerDied as error:
        return structs.replace(row, failed=f"worker died: {error.text}")
    except (DeviceMissingError, BareEndedError, ArenaFull, NotMeasuredError) as error:
        return structs.replace(row, failed=str(error))


async def _beside(subject: BareSubject, row: Row, asked: Asked, ours: WorkerSide, means: Means) -> Row:
    """The worker is there; the bare runtime comes beside it, and where it cannot, the row says so."""
    marks = _marks_before(asked, ours)
    async with contextlib.AsyncExitStack() as stack:
        try:
            bare = await stack.enter_async_context(bare_side(subject))
        except BareEndedError as error:
            bare = None
            marks.append(f"not compared: {error}")
        metering = means.meters.covering(asked.choice.use)
        pair = Pair(ours, bare, metering)
        scenario, before, after = await SideBySide(asked, pair, means.progress).measure(row.scenario)
        device = f"{asked.choice.use} {ours.device}"
        settled = account(pair.rounds, Metered(device, metering, before, after, means.meters.model))
        found = figures_of(settled, ours, bare.runtime if bare else "")
        if pair.meter_failure:
            marks.append(f"meter: {pair.meter_failure}")
        rules_met = meets_the_rules(scenario.name, found.seconds, found.inferences)
        loadgen = await means.more_load(ours, scenario, found) if means.more_load else None
        if loadgen is not None:
            marks += disagreements(loadgen)
        return structs.replace(
            row,
            scenario=structs.replace(scenario, rules_met=rules_met),
            figures=found,
            marks=(*marks, *settled.marks, *marks_of(settled.rounds, scenario)),
            rounds=settled.rounds,
            loadgen=loadgen,
        )


def _marks_before(asked: Asked, ours: WorkerSide) -> list[str]:
    """What is known before anything is measured."""
    marks = [asked.entry.note] if asked.entry.note else []
    if asked.choice.use == FSD:
        marks += [CALIBRATED] if "calibration" not in asked.choice.options else []
        marks += [EMULATED] if ours.device == EMULATOR else []
    return marks


def _batch(asked: Asked, ours: WorkerSide) -> int:
    """Rows of a run."""
    most, run_s = ours.program.max_batch, ours.program.cost.run_s
    if asked.batch is not None:
        if most is not None and asked.batch > most:
            raise NotMeasuredError(f"a run takes {most} rows at most, not {asked.batch}")
        return asked.batch
    if asked.scenario != "offline" or not run_s:
        return 1
    return min(run_s, key=lambda rows: run_s[rows] / rows)


def _calibrated(choice: BackendChoice, subject: Subject) -> BackendChoice:
    """The fsd backend quantises what is in floats, and needs typical inputs for it."""
    if choice.use != FSD or "calibration" in choice.options:
        return choice
    return replace(choice, options={**choice.options, "calibration": str(subject.arrays_file)})


def _bare_subject(subject: Subject, choice: BackendChoice, ours: WorkerSide) -> BareSubject:
    """The same model with the same settings, as far as a bare runtime has them."""
    model = subject.model
    options: dict[str, Any] = all_options(choice)
    return BareSubject(
        path=str(model.path),
        format=model.format,
        inputs=ours.program.inputs,
        arrays=str(subject.arrays_file),
        threads=options.get("threads", 1),
        spinning=options.get("spinning", False),
        optimisation=options.get("optimisation", "all"),
        use="" if BARE_FORMATS.get(choice.use) == model.format else choice.use,
        options=options,
        device=ours.device,
        sha256=model.sha256,
    )
