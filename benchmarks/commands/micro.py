"""`python -m benchmarks micro`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.refusal import refused

Storage = Annotated[Path, typer.Option(metavar="FOLDER", help="where the baselines are kept")]
FailAbove = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="PERCENT", help="fail when a median has grown by more than this since the baseline"
    ),
]
Only = Annotated[
    str,
    typer.Option(
        "--only",
        "-k",
        metavar="EXPRESSION",
        help="as pytest's -k; a part becomes no baseline unless --save names it",
    ),
]
Save = Annotated[str, typer.Option(metavar="NAME", help="name the baseline; without: its commit and time")]
Quick = Annotated[bool, typer.Option("--quick", help="fewer rounds: a look: it becomes no baseline")]


def micro(
    storage: Storage = Path(".benchmarks"),
    fail_above: FailAbove = None,
    only: Only = "",
    save: Save = "",
    quick: Quick = False,
) -> None:
    """Measure the micro-costs of our own path beside the newest baseline, and become the next one.

    By pytest-benchmark: framing, signature, strict JSON, policy step, a cue to the kill, store commits, slot round
    trips. What is too slow by --fail-above does not become a baseline.
    """
    from benchmarks.micro.sitting import Sitting  # noqa: PLC0415 - as the other commands

    if find_spec("pytest_benchmark") is None:
        raise refused("micro: pytest-benchmark is not installed here: pip install -e '.[dev]'", code=1)
    code = Sitting(storage.resolve(), fail_above, only, save, quick).run()
    if code:
        raise typer.Exit(1)
