"""`python -m benchmarks plot RESULTS`."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.commands.refusal import refused
from benchmarks.throughput.results import ResultsError, read

File = Annotated[Path, typer.Argument(metavar="RESULTS", help="results.json, or its folder")]
Out = Annotated[Path | None, typer.Option(metavar="FOLDER", help="without: beside the results")]


def plot(results: File, *, out: Out = None) -> None:
    """Draw a results file as PNG and SVG: throughput per watt, latency, throughput and power over the batch, rooflines.

    Pictures that it has no rows for are left out.
    """
    from benchmarks.throughput import plots  # noqa: PLC0415 - as the other commands

    if not plots.available():
        raise refused("plot: matplotlib is not installed here: pip install 'parkwatt[plot]'", code=1)
    try:
        found = read(results)
    except ResultsError as error:
        raise refused(f"plot: {error}") from error
    folder = out or (results if results.is_dir() else results.parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = plots.draw(found, folder, lambda line: print(f"plot: {line}"))
    except OSError as error:
        raise refused(f"plot: --out {folder}: {error.strerror}") from error
    for file in files:
        print(file)
    if not files:
        raise refused(f"plot: {results} has no row with figures: there is nothing to draw", code=1)
