"""`python -m benchmarks`: the numbers of the README, each with its goal and its spread."""

import asyncio
import platform
from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer

from benchmarks import car_days, cues, footprint, starts, stay, tasks

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class What(StrEnum):
    """What can be measured."""

    STARTS = "starts"
    FOOTPRINT = "footprint"
    TASKS = "tasks"
    CUES = "cues"
    STAY = "stay"
    CAR_DAYS = "car-days"


@app.command()
def measure(
    what: Annotated[list[What] | None, typer.Argument(help="without any: all but car-days")] = None,
    quick: Annotated[bool, typer.Option(help="fewer rounds: a look, not a result")] = False,
    days: Annotated[int | None, typer.Option(min=1, help="of car-days; a million take an hour")] = None,
    seed: Annotated[int, typer.Option(help="of car-days")] = 1,
) -> None:
    """Measure the service on this machine, its forecast of the stay, and its policy over simulated car-days."""
    print(
        f"{platform.processor() or platform.machine()}, {platform.release()}, Python {platform.python_version()}"
    )
    if quick:
        print("quick: fewer rounds than the README's figures")
    runs = _runs(quick, days, seed)
    for name in what or [name for name in What if name is not What.CAR_DAYS]:
        for line in asyncio.run(runs[name]()):
            print(line, flush=True)


def _runs(
    quick: bool, days: int | None, seed: int
) -> Mapping[What, Callable[[], Coroutine[None, None, Sequence[object]]]]:
    return {
        What.STARTS: lambda: starts.measure(rounds=3 if quick else 15),
        What.FOOTPRINT: lambda: footprint.measure(seconds=5 if quick else 60),
        What.TASKS: lambda: tasks.measure(rounds=2 if quick else 7, tasks=1000 if quick else 3000),
        What.CUES: lambda: cues.measure(cues=10 if quick else 200),
        What.STAY: stay.measure,
        What.CAR_DAYS: lambda: car_days.measure(
            days or (car_days.QUICK_DAYS if quick else car_days.DAYS), seed
        ),
    }


if __name__ == "__main__":
    app()
