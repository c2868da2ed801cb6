"""Bars with intervals, a panel for each model: throughput per watt, measured or modelled, and per CPU second."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.throughput import plot_meters, titles
from benchmarks.throughput.intervals import reciprocal
from benchmarks.throughput.markdown_table import shown
from benchmarks.throughput.plot_meters import Joules
from benchmarks.throughput.plot_style import Look, figure, looks
from benchmarks.throughput.results import Interval, Results, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCENARIOS: Final = ("single", "offline")
COMPUTES_NOTHING: Final = "null"
"""A backend of which the bar would make all others too short to be seen."""
BAR_INCHES: Final = 0.2
PANEL_INCHES: Final = 0.32
AROUND_INCHES: Final = 0.9
LABEL_ROOM: Final = 1.75
"""The axis reaches so far beyond the longest bar: its label stands there."""


@dataclass(frozen=True, slots=True)
class Bars:
    """A picture. `of`: the figure of a row, None where it has none."""

    name: str
    title: str
    of: Callable[[Row], Interval | None]


def pictures(results: Results) -> Iterator[Bars]:
    """One for each meter and each model: their joules are never compared with others."""
    for joules in plot_meters.kinds(results):
        yield Bars(
            f"throughput-per-watt{joules.suffix}",
            f"Throughput per watt: inferences per joule,\n{joules.words}",
            partial(_per_joule, joules),
        )
    yield Bars("throughput-per-cpu-second", "Inferences per CPU second", _per_cpu_s)


def _per_joule(joules: Joules, row: Row) -> Interval | None:
    return row.figures.energy.inferences_per_joule if row.figures and joules.of(row) else None


def _per_cpu_s(row: Row) -> Interval | None:
    return reciprocal(row.figures.cpu_s_per_inference) if row.figures else None


def drawn(bars: Bars, results: Results) -> "Figure | None":
    """None where no row has the figure."""
    models = {row.model.id: _bars(bars, results, row.model.id) for row in results.rows}
    panels = {model: found for model, found in models.items() if found}
    if not panels:
        return None
    counts = [len(found) for found in panels.values()]
    height = AROUND_INCHES + PANEL_INCHES * len(counts) + BAR_INCHES * sum(counts)
    page = figure(
        height, f"{bars.title}\neach model has its own scale, from 0; with intervals of 95 %", results
    )
    ratios = [count + PANEL_INCHES / BAR_INCHES for count in counts]
    all_axes = page.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    known = looks(results.rows)
    for axes, (model, found) in zip(all_axes, panels.items(), strict=True):
        _panel(axes, model, found, known)
    return page


def _bars(bars: Bars, results: Results, model: str) -> list[tuple[Row, Interval]]:
    """The bars of a model; of several batch sizes of one backend the best."""
    best: dict[tuple[str, str, str], tuple[Row, Interval]] = {}
    for row in results.rows:
        if row.model.id != model or row.figures is None or row.scenario.name not in SCENARIOS:
            continue
        if row.backend.use == COMPUTES_NOTHING:
            continue
        figure_of = bars.of(row)
        key = (row.backend.use, row.backend.device, row.scenario.name)
        if figure_of is not None and (key not in best or figure_of.value > best[key][1].value):
            best[key] = (row, figure_of)
    return list(best.values())


def _panel(axes: "Axes", model: str, found: Sequence[tuple[Row, Interval]], known: dict[str, Look]) -> None:
    longest = max(interval.high or interval.value for _, interval in found)
    for place, (row, interval) in enumerate(found):
        look = known[row.backend.use]
        axes.barh(
            place, interval.value, height=0.72, color=look.colour, hatch=look.hatch, edgecolor="white", lw=0
        )
        end = interval.value
        if interval.low is not None and interval.high is not None:
            end = interval.high
            axes.errorbar(
                interval.value,
                place,
                xerr=[[interval.value - interval.low], [interval.high - interval.value]],
                color="black",
                capsize=2.5,
                lw=1,
            )
        axes.text(end + longest * 0.015, place, shown(interval), va="center", fontsize=7.5)
    axes.set_yticks(range(len(found)), [f"{titles.backend(row)}, {titles.scenario(row)}" for row, _ in found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(0, longest * LABEL_ROOM)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title(model, loc="left", fontweight="bold", pad=2)
