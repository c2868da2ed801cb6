"""The measurements of the service, its workers, the FSD emulator, the forecast of the stay and the policy, by name."""

import asyncio
import platform
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import bytecode
from benchmarks.cue_kinds import Kind

Quick = Annotated[bool, typer.Option("--quick", help="fewer rounds: a look, not a result")]
Days = Annotated[int | None, typer.Option(min=1, help="a million take an hour")]
Rounds = Annotated[int | None, typer.Option(min=10, help="ten thousand take half an hour")]
Cues = Annotated[
    int | None, typer.Option(min=1, help="over each kind of work; a thousand take a quarter of an hour")
]
Kinds = Annotated[list[Kind] | None, typer.Option(help="a kind of work, once or more; without it each")]
Seed = Annotated[int, typer.Option(help="of the cars and their days")]
Plot = Annotated[Path | None, typer.Option(metavar="FOLDER", help="pictures, too")]


def starts(quick: Quick = False) -> None:
    """Measure how long `parkwatt run` takes to READY=1 and to its subscriptions."""
    from benchmarks import starts as measured  # noqa: PLC0415 - a command imports what it measures

    _print(quick, measured.measure(rounds=3 if quick else 15))


def footprint(quick: Quick = False) -> None:
    """Measure memory, processor time, wake-ups and the link while blocked, idle and at work: 10 minutes each."""
    from benchmarks import footprint as measured  # noqa: PLC0415 - as above

    _print(quick, measured.measure(seconds=60 if quick else 600))


def tasks(quick: Quick = False) -> None:
    """Measure tasks from end to end, beside a bare MQTT client."""
    from benchmarks import tasks as measured  # noqa: PLC0415 - as above

    _print(quick, measured.measure(rounds=2 if quick else 7, tasks=1000 if quick else 3000))


def durability(quick: Quick = False) -> None:
    """Measure what a killed broker and a slow disk cost."""
    from benchmarks import durability as measured  # noqa: PLC0415 - as above

    _print(quick, measured.measure(quick))


def cues(quick: Quick = False, cues: Cues = None, over: Kinds = None) -> None:
    """Measure from a door's frame to the worker's signal, last instruction and freed memory."""
    from benchmarks import cues as measured  # noqa: PLC0415 - as above

    _print(quick, measured.measure(cues or (20 if quick else 200), over or list(Kind)))


def kernels(quick: Quick = False) -> None:
    """Measure the worker beside the bare runtime, its round trip, and its start to the first row."""
    from benchmarks import kernels as measured  # noqa: PLC0415 - as above
    from benchmarks import worker_times  # noqa: PLC0415 - as above

    rounds = 5 if quick else 31
    _print(quick, measured.measure(rounds), worker_times.measure(runs=300 if quick else 3000, rounds=rounds))


def endurance(quick: Quick = False, rounds: Rounds = None) -> None:
    """Look for leaks over thousands of preemptions, loads and reconnects; long."""
    from benchmarks import endurance as measured  # noqa: PLC0415 - as above

    _print(quick, measured.measure(rounds or (200 if quick else 10_000)))


def stay(quick: Quick = False) -> None:
    """Score the forecast of the stay on real charging sessions."""
    from benchmarks import stay as measured  # noqa: PLC0415 - as above

    _print(quick, measured.measure())


def car_days(quick: Quick = False, days: Days = None, seed: Seed = 1) -> None:
    """Simulate days of cars under the real policy, and count what must never happen; long."""
    from benchmarks import car_days as measured  # noqa: PLC0415 - as above

    _print(quick, measured.measure(days or (measured.QUICK_DAYS if quick else measured.DAYS), seed))


def fsd(quick: Quick = False, plot: Plot = None) -> None:
    """Measure the FSD emulator beside onnxruntime, its agreement with floats, and costs by its model."""
    _print(quick, _of_the_chip(quick, plot))


async def _of_the_chip(quick: bool, plot: Path | None) -> Sequence[object]:
    from benchmarks import fsd as measured  # noqa: PLC0415 - as above
    from benchmarks import fsd_agreement, fsd_costs  # noqa: PLC0415 - as above
    from benchmarks.wheels import WheelMissingError  # noqa: PLC0415 - as above

    lines = measured.measure(5 if quick else 31)
    try:
        return [*lines, *fsd_agreement.measure(), *fsd_costs.measure(plot)]
    except WheelMissingError as error:
        return [*lines, f"fsd: the rest was not measured: {error}"]


ALL = (starts, footprint, tasks, durability, cues, kernels, stay, fsd)
LONG = (car_days, endurance)
"""Measured only when asked for by name."""


def everything(quick: Quick = False) -> None:
    """Measure all of the above but what takes long: car-days and endurance."""
    for command in ALL:
        command(quick=quick)


def _print(quick: bool, *measurements: Coroutine[None, None, Sequence[object]]) -> None:
    print(
        f"{platform.processor() or platform.machine()}, {platform.release()}, Python {platform.python_version()}"
    )
    if quick:
        print("quick: fewer rounds than the README's figures")
    if not bytecode.as_installed():
        print("some modules have no bytecode here: every start below compiles them")
    for measurement in measurements:
        for line in asyncio.run(measurement):
            print(line, flush=True)
