"""`python -m benchmarks`: the numbers of the README, each with its goal and its spread."""

import asyncio
import platform
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks import (
    car_days,
    durability,
    endurance,
    footprint,
    fsd,
    fsd_agreement,
    fsd_costs,
    kernels,
    starts,
    stay,
    tasks,
    worker_times,
)
from benchmarks import cues as preemptions
from benchmarks.wheels import WheelMissingError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
Measurement = Callable[[], Coroutine[None, None, Sequence[object]]]


class What(StrEnum):
    """What can be measured."""

    STARTS = "starts"
    FOOTPRINT = "footprint"
    TASKS = "tasks"
    CUES = "cues"
    KERNELS = "kernels"
    ENDURANCE = "endurance"
    DURABILITY = "durability"
    STAY = "stay"
    CAR_DAYS = "car-days"
    FSD = "fsd"


LONG: Final = frozenset({What.CAR_DAYS, What.ENDURANCE})
"""Measured only when asked for by name."""


@app.command()
def measure(
    what: Annotated[
        list[What] | None, typer.Argument(help="without any: all but car-days and endurance")
    ] = None,
    *,
    quick: Annotated[bool, typer.Option(help="fewer rounds: a look, not a result")] = False,
    days: Annotated[int | None, typer.Option(min=1, help="of car-days; a million take an hour")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=10, help="of endurance; ten thousand take half an hour")
    ] = None,
    cues: Annotated[int | None, typer.Option(min=1, help="of cues, over each kind of work")] = None,
    seed: Annotated[int, typer.Option(help="of car-days")] = 1,
    plot: Annotated[Path | None, typer.Option(metavar="FOLDER", help="pictures of fsd, too")] = None,
) -> None:
    """Measure the service, its workers and the FSD emulator on this machine, the forecast of the stay, and the policy."""
    print(
        f"{platform.processor() or platform.machine()}, {platform.release()}, Python {platform.python_version()}"
    )
    if quick:
        print("quick: fewer rounds than the README's figures")
    runs: dict[What, Measurement] = {
        **_of_the_service(quick, cues),
        **_of_workers(quick, rounds),
        What.STAY: stay.measure,
        What.FSD: lambda: _of_the_chip(quick, plot),
        What.CAR_DAYS: lambda: car_days.measure(
            days or (car_days.QUICK_DAYS if quick else car_days.DAYS), seed
        ),
    }
    for name in what or [name for name in What if name not in LONG]:
        for line in asyncio.run(runs[name]()):
            print(line, flush=True)


async def _of_the_chip(quick: bool, plot: Path | None) -> Sequence[object]:
    lines = fsd.measure(5 if quick else 31)
    try:
        return [*lines, *fsd_agreement.measure(), *fsd_costs.measure(plot)]
    except WheelMissingError as error:
        return [*lines, f"fsd: the rest was not measured: {error}"]


def _of_the_service(quick: bool, cues: int | None) -> dict[What, Measurement]:
    return {
        What.STARTS: lambda: starts.measure(rounds=3 if quick else 15),
        What.FOOTPRINT: lambda: footprint.measure(seconds=5 if quick else 60),
        What.TASKS: lambda: tasks.measure(rounds=2 if quick else 7, tasks=1000 if quick else 3000),
        What.DURABILITY: lambda: durability.measure(quick),
        What.CUES: lambda: preemptions.measure(cues or (20 if quick else 200)),
    }


def _of_workers(quick: bool, rounds: int | None) -> dict[What, Measurement]:
    async def of_kernels() -> Sequence[object]:
        return [
            *await kernels.measure(rounds=5 if quick else 31),
            *await worker_times.measure(runs=300 if quick else 3000, rounds=5 if quick else 31),
        ]

    return {
        What.KERNELS: of_kernels,
        What.ENDURANCE: lambda: endurance.measure(rounds or (200 if quick else 10_000)),
    }


if __name__ == "__main__":
    app()
