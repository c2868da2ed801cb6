"""`python -m benchmarks self-check`."""

import asyncio
import contextlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.refusal import refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.throughput.catalogue import Entry
    from benchmarks.throughput.self_checking import Gauge, Length
    from benchmarks.throughput.worker_side import BackendChoice
    from firmware_shims.power.meter import Meter

Backend = Annotated[str, typer.Option(metavar="NAME", help="a backend by name or MODULE:CLASS")]
Model = Annotated[str, typer.Option(metavar="ID", help="a model of the catalogue, as `run` takes it")]
Device = Annotated[str, typer.Option(metavar="NAME", help="without: the first usable one")]
MeterName = Annotated[str, typer.Option(metavar="NAME", help="auto, none, or a meter as for `run`")]
PowerModel = Annotated[
    float, typer.Option(min=0.01, metavar="WATTS_PER_CORE", help="where no meter is; told as a model")
]
Rounds = Annotated[int | None, typer.Option(min=3, help="of linearity and zero work")]
Runs = Annotated[int | None, typer.Option(min=3, help="worker processes, for the variation from run to run")]
TurnS = Annotated[float | None, typer.Option(min=0.05, help="how long the work takes once")]
Quick = Annotated[bool, typer.Option("--quick", help="a look, not a result")]


def self_check(
    *,
    backend: Backend = "cpu",
    model: Model = "file-types",
    device: Device = "",
    meter: MeterName = "auto",
    power_model: PowerModel = 10.0,
    rounds: Rounds = None,
    runs: Runs = None,
    turn_s: TurnS = None,
    quick: Quick = False,
) -> None:
    """Check the benchmark itself: a meter of known wattage, linearity, zero work, variation from run to run.

    A load of k times the work must cost k times the active joules within 5 %; exit 1 when a check fails or cannot be
    told.
    """
    from benchmarks.throughput import catalogue, meters  # noqa: PLC0415 - others need no numpy
    from benchmarks.throughput.self_checking import QUICK, Length  # noqa: PLC0415 - as above
    from firmware_shims.clock import boottime_ns  # noqa: PLC0415 - as above

    usual = QUICK if quick else Length()
    length = replace(
        usual, rounds=rounds or usual.rounds, runs=runs or usual.runs, turn_s=turn_s or usual.turn_s
    )
    try:
        entry = catalogue.chosen([model])[0]
        choice = chosen(backend, device)
        found = meters.named(meter, [backend], boottime_ns)
    except catalogue.UnknownNameError as error:
        raise refused(f"self-check: {error}") from error
    asked = _Asked(entry, choice, found, may_fail=meter == meters.AUTO, watts_per_core=power_model)
    if not asyncio.run(_held(asked, length)):
        raise typer.Exit(1)


def chosen(backend: str, device: str) -> "BackendChoice":
    """The backend with its own defaults; raises `UnknownNameError`."""
    from backends import registry  # noqa: PLC0415 - as above
    from benchmarks.throughput.catalogue import UnknownNameError  # noqa: PLC0415 - as above
    from benchmarks.throughput.worker_side import BackendChoice  # noqa: PLC0415 - as above

    try:
        registry.validate_options(backend, {})
    except registry.UnknownBackend as error:
        raise UnknownNameError(f"--backend: {error}") from error
    return BackendChoice(backend, {}, device)


@dataclass(frozen=True, slots=True)
class _Asked:
    """`may_fail`: where the meter does not answer, a model counts instead."""

    entry: "Entry"
    choice: "BackendChoice"
    meter: "Meter | None"
    may_fail: bool
    watts_per_core: float


async def _held(asked: _Asked, length: "Length") -> bool:
    """Whether every check holds; prints each as soon as it is known."""
    from backends.kernel import KernelError  # noqa: PLC0415 - as above
    from backends.process import WorkerDied  # noqa: PLC0415 - as above
    from benchmarks.throughput import self_check, self_checking  # noqa: PLC0415 - as above
    from benchmarks.throughput.catalogue import prepared  # noqa: PLC0415 - as above
    from benchmarks.throughput.meters import why  # noqa: PLC0415 - as above
    from benchmarks.throughput.worker_side import DeviceMissingError  # noqa: PLC0415 - as above
    from benchmarks.wheels import WheelMissingError  # noqa: PLC0415 - as above
    from firmware_shims.power.meter import MeterFailed  # noqa: PLC0415 - as above

    print("the account of energy, by itself")
    first = await self_checking.known_answer()
    print(first, flush=True)
    held = first.verdict == self_check.HOLDS
    try:
        with tempfile.TemporaryDirectory() as folder:
            subject = prepared(asked.entry, Path(folder))
            async with _gauge(asked) as gauge:
                print(f"{asked.choice.use}, {asked.entry.id}; joules by {gauge}")
                async for check in self_checking.checks(subject, asked.choice, gauge, length):
                    print(check, flush=True)
                    held = held and check.verdict == self_check.HOLDS
    except MeterFailed as failure:
        raise refused(f"self-check: the meter failed: {why(failure)}", code=1) from failure
    except KernelError as error:
        raise refused(
            f"self-check: {asked.choice.use} refuses {asked.entry.id}: {error.text}", code=1
        ) from error
    except (WorkerDied, DeviceMissingError, WheelMissingError) as error:
        raise refused(f"self-check: {error}", code=1) from error
    return held


@contextlib.asynccontextmanager
async def _gauge(asked: _Asked) -> "AsyncIterator[Gauge]":
    """The meter, where it answers and measures this backend."""
    from benchmarks.throughput.meters import owned, why  # noqa: PLC0415 - as above
    from benchmarks.throughput.self_checking import Gauge  # noqa: PLC0415 - as above

    async with owned(asked.meter) as (found, failure):
        if failure is not None and not asked.may_fail:
            raise failure
        if failure is not None:
            print(f"no meter: {why(failure)}")
        owner = found if found is not None and found.covers(asked.choice.use) else None
        if found is not None and owner is None:
            print(f"no meter: {found.used.name} does not measure what {asked.choice.use} does")
        yield Gauge(owner, asked.watts_per_core)
