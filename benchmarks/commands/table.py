"""`python -m benchmarks table RESULTS`."""

from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks.commands.refusal import refused
from benchmarks.throughput.results import ResultsError, read

BEGIN: Final = "<!-- benchmarks: begin -->"
END: Final = "<!-- benchmarks: end -->"

File = Annotated[Path, typer.Argument(metavar="RESULTS", help="results.json, or its folder")]
Full = Annotated[bool, typer.Option("--full", help="the page of results.md: more columns")]
Into = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help=f"put it between the lines {BEGIN} and {END} of this file"),
]


def table(results: File, *, full: Full = False, into: Into = None) -> None:
    """Print the Markdown table of a results file, its machine named, or put it into the README.

    Measured and modelled joules have columns of their own.
    """
    from benchmarks.throughput import markdown_table  # noqa: PLC0415 - as the other commands

    try:
        found = read(results)
    except ResultsError as error:
        raise refused(f"table: {error}") from error
    text = markdown_table.page(found) if full else markdown_table.readme(found, str(results))
    if into is None:
        print(text)
        return
    try:
        before = into.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise refused(f"table: {into}: cannot be read: {error}") from error
    into.write_text(between_markers(before, text, into))


def between_markers(before: str, text: str, file: Path) -> str:
    """The file's text with what stands between its two markers replaced; refuses any other number of them."""
    lines = before.split("\n")
    begins, ends = (
        [number for number, line in enumerate(lines) if line.strip() == mark] for mark in (BEGIN, END)
    )
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        raise refused(
            f"table: {file} has {len(begins)} lines {BEGIN!r} and {len(ends)} lines {END!r}: "
            "it should have one of each, in this order, with the table's place between them"
        )
    return "\n".join([*lines[: begins[0] + 1], "", text.strip("\n"), "", *lines[ends[0] :]])
