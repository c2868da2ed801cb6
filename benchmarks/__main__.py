"""`python -m benchmarks`: the numbers of the README, each with its goal and its spread."""

import asyncio
import platform
from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer

from benchmarks import cues, footprint, starts, stay, tasks

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class What(StrEnum):
    """What can be measured."""

    STARTS = "starts"
    FOOTPRINT = "footprint"
    TASKS = "tasks"
    CUES = "cues"
    STAY = "stay"


@app.command()
def measure(
    what: Annotated[list[What] | None, typer.Argument(help="all of them if none is named")] = None,
    quick: Annotated[bool, typer.Option(help="fewer rounds: a look, not a result")] = False,
) -> None:
    """Measure the service on this machine (start, memory, task rate, preemption) and its forecast of the stay."""
    print(
        f"{platform.processor() or platform.machine()}, {platform.release()}, Python {platform.python_version()}"
    )
    if quick:
        print("quick: fewer rounds than the README's figures")
    runs = _runs(quick)
    for name in what or list(What):
        for line in asyncio.run(runs[name]()):
            print(line, flush=True)


def _runs(quick: bool) -> Mapping[What, Callable[[], Coroutine[None, None, Sequence[object]]]]:
    return {
        What.STARTS: lambda: starts.measure(rounds=3 if quick else 15),
        What.FOOTPRINT: lambda: footprint.measure(seconds=5 if quick else 60),
        What.TASKS: lambda: tasks.measure(rounds=2 if quick else 7, tasks=1000 if quick else 3000),
        What.CUES: lambda: cues.measure(cues=10 if quick else 200),
        What.STAY: stay.measure,
    }


if __name__ == "__main__":
    app()
