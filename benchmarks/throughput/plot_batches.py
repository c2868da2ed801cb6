"""Throughput and power over the batch size, for models that were run with several."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.throughput.intervals import signed_interval
from benchmarks.throughput.plot_meters import Joules
from benchmarks.throughput.plot_style import Look, figure, labelled, looks, plain, without_data
from benchmarks.throughput.results import Interval, Results, Round, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES: Final = 1.75
AROUND_INCHES: Final = 0.7
HEADROOM: Final = 1.06
OFFLINE: Final = "offline"
Series = dict[str, list[Row]]
"""Rows by backend, the smallest batch first."""


def drawn(joules: Joules | None, results: Results) -> "Figure | None":
    """The throughput of every backend, and the power of those that `joules` counts; None where neither is."""
    models = {model: series for model, series in _by_model(results).items() if series}
    if joules is not None:
        models = {model: series for model, series in models.items() if _counted(joules, series)}
    if not models:
        return None
    power_of = f"active power {joules.words}" if joules else "no meter"
    title = f"Offline over the batch size: throughput and active power\n{power_of}"
    page = figure(AROUND_INCHES + PANEL_INCHES * len(models), title, results)
    known = looks(results.rows)
    pairs = page.subplots(len(models), 2, squeeze=False)
    for (throughput, power), (model, series) in zip(pairs, models.items(), strict=True):
        throughput.set_title(model, loc="left", fontweight="bold", pad=2)
        throughput.set_ylabel("inferences/s")
        _over_batches(throughput, [_throughput(rows, known[use], use) for use, rows in series.items()])
        if joules is None:
            without_data(power, "no meter")
            continue
        power.set_ylabel("W by a MODEL" if joules.source == "model" else "W")
        counted = _counted(joules, series)
        _over_batches(power, [_power(rows, known[use], use) for use, rows in counted.items()])
    return page


def _counted(joules: Joules, series: Series) -> Series:
    found = {use: [row for row in rows if joules.of(row)] for use, rows in series.items()}
    return {use: rows for use, rows in found.items() if rows}


def _by_model(results: Results) -> dict[str, Series]:
    found: defaultdict[str, defaultdict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in results.rows:
        if row.figures is not None and row.scenario.name == OFFLINE:
            found[row.model.id][row.backend.use].append(row)
    return {
        model: {
            use: sorted(rows, key=lambda row: row.scenario.batch)
            for use, rows in series.items()
            if len({row.scenario.batch for row in rows}) > 1
        }
        for model, series in found.items()
    }


def _throughput(rows: Sequence[Row], look: Look, use: str) -> "_Line":
    points = {row.scenario.batch: row.figures.throughput_per_s for row in rows if row.figures}
    return _Line(use, look, points)


def _power(rows: Sequence[Row], look: Look, use: str) -> "_Line":
    """What the work draws above idle."""
    return _Line(use, look, {row.scenario.batch: signed_interval(row.rounds, _watts) for row in rows})


def _watts(rounds: Sequence[Round]) -> float:
    turns = [each.ours for each in rounds]
    return sum(turn.joules or 0.0 for turn in turns) / sum(turn.seconds for turn in turns)


@dataclass(frozen=True, slots=True)
class _Line:
    """Intervals by batch size, the smallest first."""

    label: str
    look: Look
    points: Mapping[int, Interval]

    def draw(self, axes: "Axes") -> None:
        intervals = list(self.points.values())
        axes.errorbar(
            list(self.points),
            [each.value for each in intervals],
            yerr=[
                [0.0 if each.low is None else each.value - each.low for each in intervals],
                [0.0 if each.high is None else each.high - each.value for each in intervals],
            ],
            color=self.look.colour,
            linestyle=self.look.dashes,
            marker=self.look.marker,
            capsize=2.5,
        )


def _over_batches(axes: "Axes", lines: Sequence[_Line]) -> None:
    for line in lines:
        line.draw(axes)
    axes.set_xscale("log", base=2)
    plain(axes.xaxis)
    plain(axes.yaxis)
    axes.set_xticks(sorted({batch for line in lines for batch in line.points}))
    _, highest = axes.get_ylim()
    top = HEADROOM * highest
    axes.set_ylim(0, top)
    axes.set_xlabel("batch size", labelpad=1)
    axes.grid(axis="y", alpha=0.4, lw=0.5)
    labelled(axes, [(line.points[max(line.points)].value / top, line.label, line.look) for line in lines])
