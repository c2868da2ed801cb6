"""The distribution of latencies, a panel for each model: how many answers take longer than so many milliseconds.

The axis is spread out towards the slow ones: 90, 99 and 99.9 % stand as far from one another.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from benchmarks.throughput import figures, histogram
from benchmarks.throughput.markdown_table import number
from benchmarks.throughput.plot_style import BARE, LABEL_GAP, Look, figure, labelled, looks, plain
from benchmarks.throughput.results import Histogram, Results, Round, Row, Turn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS: Final = 2
PANEL_INCHES: Final = 1.75
AROUND_INCHES: Final = 0.9
SHARES: Final = {0.5: "p50", 0.9: "p90", 0.99: "p99", 0.999: "p99.9"}
TOLD: Final = 0.99
LEAST_BEYOND: Final = 10
"""A percentile with fewer latencies beyond it is chance: the line ends there."""
SINGLE: Final = "single"
WIDE: Final = 200
"""An axis that ends at so many times its beginning has no room for ticks within decades."""


def drawn(results: Results) -> "Figure | None":
    """Of the rows of the single scenario that have enough latencies for a median; None where there are none."""
    rows = [row for row in results.rows if row.figures and row.scenario.name == SINGLE and _enough(row)]
    models = list(dict.fromkeys(row.model.id for row in rows))
    if not models:
        return None
    lines = -(-len(models) // COLUMNS)
    title = "Latency of one query at a time; dotted: the bare runtime"
    page = figure(AROUND_INCHES + PANEL_INCHES * lines, title, results)
    all_axes = page.subplots(lines, COLUMNS, squeeze=False, sharey=True).flat
    known = looks(results.rows)
    for axes, model in itertools.zip_longest(all_axes, models):
        if model is None:
            axes.set_visible(False)
        else:
            _panel(axes, model, [row for row in rows if row.model.id == model], known)
    return page


def _panel(axes: "Axes", model: str, rows: Sequence[Row], known: dict[str, Look]) -> None:
    from matplotlib.ticker import NullLocator  # noqa: PLC0415 - as in plot_style

    labels = []
    for row in rows:
        look = known[row.backend.use]
        if all(each.bare is not None for each in row.rounds):
            _line(axes, _together(row.rounds, figures.bare), BARE)
        together = _together(row.rounds, figures.ours)
        _line(axes, together, look)
        labels.append((*_told(together), row.backend.use, look))
    slowest_first = sorted(labels, key=lambda label: label[0], reverse=True)
    labelled(
        axes,
        [
            (0.9 - 2 * LABEL_GAP * place, f"{use}\n{told} {number(told_ms)} ms", look)
            for place, (told_ms, told, use, look) in enumerate(slowest_first)
        ],
    )
    axes.set_title(model, loc="left", fontweight="bold", pad=2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1, (1 - max(SHARES)) * 0.7)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticks([1 - share for share in SHARES], list(SHARES.values()))
    low, high = axes.get_xlim()
    plain(axes.xaxis, steps=(1,) if high / low > WIDE else (1, 2, 5))
    axes.grid(axis="y", alpha=0.4, lw=0.5)
    axes.set_xlabel("ms", labelpad=1)


def _enough(row: Row) -> bool:
    return histogram.count(_together(row.rounds, figures.ours)) * min(SHARES) >= LEAST_BEYOND


def _together(rounds: Sequence[Round], side: Callable[[Round], Turn]) -> Histogram:
    return histogram.merged(side(each).latency for each in rounds)


def _told(latencies: Histogram) -> tuple[float, str]:
    """The highest percentile up to `TOLD` that is no chance, or the lowest of all; milliseconds and its name."""
    total = histogram.count(latencies)
    shares = [share for share in SHARES if share <= TOLD and total * (1 - share) >= LEAST_BEYOND]
    share = max(shares, default=min(SHARES))
    return histogram.quantile_ms(latencies, share), SHARES[share]


def _line(axes: "Axes", latencies: Histogram, look: Look) -> None:
    xs, ys = _beyond(latencies)
    axes.plot(xs, ys, color=look.colour, linestyle=look.dashes)
    marked = [share for share in SHARES if 1 - share >= ys[-1]]
    places = [histogram.quantile_ms(latencies, share) for share in marked]
    axes.plot(places, [1 - share for share in marked], color=look.colour, marker=look.marker, ls="")


def _beyond(latencies: Histogram) -> tuple[list[float], list[float]]:
    """Milliseconds, and which share takes longer, for as long as enough do."""
    total = beyond = histogram.count(latencies)
    xs, ys = [histogram.bounds_ms(latencies.buckets[0])[0]], [1.0]
    for bucket, inside in zip(latencies.buckets, latencies.counts, strict=True):
        beyond -= inside
        if beyond < LEAST_BEYOND:
            break
        xs.append(histogram.bounds_ms(bucket)[1])
        ys.append(beyond / total)
    return xs, ys
