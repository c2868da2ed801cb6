"""The pictures of a results file, each as PNG and SVG; of those that it has rows for."""

import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from backends.explanation import Explanation
from backends.kernel import KernelError
from benchmarks.throughput import plot_bars, plot_batches, plot_latency, plot_meters, plot_roofline
from benchmarks.throughput.plot_style import saved, styled
from benchmarks.throughput.results import ModelUsed, Results
from benchmarks.wheels import WheelMissingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.throughput.plot_meters import Joules


class NotTheSameModelError(Exception):
    """What ran is not what would be explained."""


def available() -> bool:
    """Whether there is what draws them (the extra `plot`)."""
    return find_spec("matplotlib") is not None


def draw(results: Results, folder: Path, tell: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Put them into a folder that exists; returns the files. Takes seconds. `tell` hears what was not drawn, and why."""
    with styled():
        return [
            file
            for name, page in _pages(results, tell)
            if page is not None
            for file in saved(page, folder, name)
        ]


def _pages(results: Results, tell: Callable[[str], None]) -> Iterator[tuple[str, "Figure | None"]]:
    for bars in plot_bars.pictures(results):
        yield bars.name, plot_bars.drawn(bars, results)
    yield "latency", plot_latency.drawn(results)
    counted: list[Joules | None] = list(plot_meters.kinds(results))
    for joules in counted or [None]:
        yield f"batches{joules.suffix if joules else ''}", plot_batches.drawn(joules, results)
    yield from _rooflines(results, tell)


def _rooflines(results: Results, tell: Callable[[str], None]) -> Iterator[tuple[str, "Figure | None"]]:
    """Of every model that ran on `fsd`."""
    models = {row.model.id: row.model for row in results.rows if row.figures and row.backend.use == "fsd"}
    for name, used in models.items():
        try:
            found = _explained(used)
        except (NotTheSameModelError, WheelMissingError, KernelError) as error:
            tell(f"roofline of {name}: not drawn: {error}")
            continue
        yield f"roofline-{name}", plot_roofline.drawn(name, found, results)


def _explained(used: ModelUsed) -> Explanation:
    """By the catalogue's file, which must be the one that ran: results do not hold models."""
    from backends.fsd import Fsd, FsdOptions  # noqa: PLC0415 - most files have no such row
    from benchmarks.throughput.catalogue import CATALOGUE, prepared  # noqa: PLC0415

    if used.id not in CATALOGUE:
        raise NotTheSameModelError(f"the catalogue has no model {used.id!r}")
    with tempfile.TemporaryDirectory() as scratch:
        model = prepared(CATALOGUE[used.id], Path(scratch)).model
        if model.sha256 != used.sha256:
            raise NotTheSameModelError("the catalogue's file is another one than ran")
        return Fsd(FsdOptions()).explain(model)
