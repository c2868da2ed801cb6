"""`python -m benchmarks compare A B`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import replace

from benchmarks.commands.refusal import refused
from benchmarks.throughput.results import Results, ResultsError, Row, read

if TYPE_CHECKING:
    from collections.abc import Callable

FileA = Annotated[Path, typer.Argument(metavar="A", help="results.json, or its folder: the one before")]
FileB = Annotated[Path, typer.Argument(metavar="B", help="the one after")]
Threshold = Annotated[
    str,
    typer.Option(
        metavar="PERCENT", help="exit 1 when a whole interval lies on the worse side by more than this"
    ),
]
RunToRun = Annotated[
    str,
    typer.Option(
        metavar="PERCENT", help="how much a figure varies from run to run, as `self-check` measures it"
    ),
]
Only = Annotated[
    str, typer.Option("--model", metavar="ID", help="compare one model only: fewer intervals, each narrower")
]
BackendA = Annotated[str, typer.Option(metavar="NAME", help="only this backend's rows of A")]
BackendB = Annotated[
    str, typer.Option(metavar="NAME", help="only this backend's rows of B: two backends of one file")
]


def compare(
    a: FileA,
    b: FileB,
    *,
    threshold: Threshold = "5%",
    run_to_run: RunToRun = "0%",
    model: Only = "",
    backend_a: BackendA = "",
    backend_b: BackendB = "",
) -> None:
    """Compare two results: ratios with intervals, a verdict where they allow one; exit 1 on a regression.

    Throughput, latency p99, CPU seconds per inference, inferences per joule; B through A. A row that ran in A and
    fails in B is a regression too. Measured and modelled joules are never compared.
    """
    from benchmarks.throughput import compare_report  # noqa: PLC0415 - as the other commands
    from benchmarks.throughput.compare import Terms  # noqa: PLC0415
    from benchmarks.throughput.compare import compare as compared  # noqa: PLC0415

    terms = Terms(share(threshold, "--threshold"), share(run_to_run, "--run-to-run"))
    found = compared(chosen(a, backend_a, model), chosen(b, backend_b, model), terms)
    if not found.pairs:
        raise refused(
            f"compare: {a} and {b} have no row in common: measure the same models and scenarios on both"
        )
    for line in compare_report.lines(found):
        print(line)
    if found.regressions:
        raise typer.Exit(1)


def share(text: str, option: str) -> float:
    """`5%` as 0.05; refuses what is no percentage from 0 to 100."""
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent < 100:
        raise refused(f"compare: {option} {text}: should be a percentage from 0 to below 100, such as 5%")
    return percent / 100


def chosen(path: Path, backend: str, model: str) -> Results:
    """The results in a file, of one backend and one model where they are named."""
    try:
        results = read(path)
    except ResultsError as error:
        raise refused(f"compare: {error}") from error
    rows = results.rows
    names: tuple[tuple[str, str, Callable[[Row], str]], ...] = (
        ("backend", backend, lambda row: row.backend.use),
        ("model", model, lambda row: row.model.id),
    )
    for what, wanted, of in names:
        there = sorted({of(row) for row in results.rows})
        if wanted and wanted not in there:
            raise refused(f"compare: {path} has no {what} {wanted!r}; it has {', '.join(there) or 'no rows'}")
        rows = tuple(row for row in rows if wanted in {"", of(row)})
    return replace(results, rows=rows)
