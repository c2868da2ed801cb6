"""The account of the days as a picture (PNG). Together with that of a replay the only module that needs matplotlib."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from agent.history.report import Day, History
from agent.history.table import work_lost_s
from agent.protocol.messages import EnergySource, TaskState
from agent.told import joules, span

SIZE_IN: Final = (14.0, 9.5)
DPI: Final = 110
DAY_H: Final = 24.0
LEAST_H: Final = 0.5
"""What seconds are shown against: a reason that cost nothing looks like nothing."""
OTHERS: Final = "others"
BAR: Final = 0.82
"""Of a day's width."""
DAYS_APART: Final = 60
"""With more, bars touch, and edges and hatches would hide them."""
DAYS_NAMED: Final = 14
LEGEND_AT: Final = 1.01
_FONT_PT: Final = 11

# Okabe and Ito's palette, which people with any kind of colour vision can tell apart (jfly.uni-koeln.de/color, 2008);
# the hatches tell the same colours apart in print.
_GREEN, _ORANGE, _BLUE, _SKY = "#009E73", "#E69F00", "#0072B2", "#56B4E9"
_VERMILION, _PURPLE, _YELLOW, _PALE_GREEN = "#D55E00", "#CC79A7", "#F0E442", "#B5E2D3"
_DARK, _EDGE, _MIDDLE, _LIGHT = "#777777", "#444444", "#AAAAAA", "#DDDDDD"


@dataclass(frozen=True, slots=True)
class Style:
    """How a part of a bar is drawn and what it is called."""

    colour: str
    text: str
    hatch: str = ""


Part = tuple[Style, Sequence[float]]
"""A part of every day's bar, with its height of each day."""
HOURS: Final[Sequence[tuple[Style, Callable[[Day], float]]]] = (
    (Style(_GREEN, "working"), lambda day: day.working_s),
    (Style(_PALE_GREEN, "ready, not working", "//"), lambda day: day.ready_s),
    (Style(_YELLOW, "settling", ".."), lambda day: day.settling_s),
    (Style(_DARK, "blocked"), work_lost_s),
    (Style(_LIGHT, "computer asleep"), lambda day: day.asleep_s),
    (Style("white", "no agent ran"), lambda day: day.unseen_s),
)
REASON_STYLES: Final = (
    (_BLUE, ""),
    (_ORANGE, "//"),
    (_PURPLE, ".."),
    (_SKY, "\\\\"),
    (_VERMILION, "xx"),
    (_YELLOW, "++"),
)
"""With more nobody could tell them apart; the rest is one."""
SOURCES: Final[Mapping[EnergySource, Style]] = {
    EnergySource.COUNTER: Style(_BLUE, "counted by hardware"),
    EnergySource.INTEGRATED: Style(_ORANGE, "integrated from watts", "//"),
    EnergySource.MODEL: Style(_PURPLE, "a model, not measured", ".."),
}


def draw(history: History, file: Path) -> None:
    """Write the picture; OSError when the file cannot be written."""
    figure(history).savefig(file, format="png")


def figure(history: History) -> Figure:
    """Three pictures over the same days: where the hours went, why there was no work, and what was done."""
    picture = Figure(figsize=SIZE_IN, dpi=DPI)
    FigureCanvasAgg(picture)
    hours, reasons, rows, energy = picture.subplots(
        4, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2.4, 1.3, 1.6), "hspace": 0.14}
    )
    picture.subplots_adjust(left=0.075, right=0.765, top=0.905, bottom=0.06)
    dates = [day.day for day in history.days if day.day is not None]
    days = [day for day in history.days if day.day is not None]
    _stack(hours, dates, [(style, [of(day) / 3600 for day in days]) for style, of in HOURS])
    hours.set_ylim(0, max(DAY_H, *(day.length_s / 3600 for day in days)))
    hours.set_yticks(range(0, 25, 6))
    _label(hours, "hours", "where the hours went")
    _stack(reasons, dates, _lost(days, history.total))
    reasons.set_ylim(0, max(LEAST_H, reasons.get_ylim()[1]))
    _label(reasons, "hours", "first reason for no work")
    _stack(rows, dates, [(Style(_GREEN, "rows done"), [float(day.rows) for day in days])])
    rows.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    rows.yaxis.set_major_formatter("{x:,.0f}")
    _label(rows, "rows", _tasks(history.total))
    sources = _energy(days, history.total)
    _side_by_side(energy, dates, sources)
    _label(energy, "watt hours", "energy by its source" if sources else "")
    _date_axis(energy, dates)
    _title(picture, history)
    picture.align_ylabels([hours, reasons, rows, energy])
    return picture


def _lost(days: Sequence[Day], total: Day) -> Sequence[Part]:
    """The reasons that cost the most, the rest of them together."""
    named = [lost.code for lost in total.lost if lost.first_s][: len(REASON_STYLES)]
    by_code = [{lost.code: lost.first_s / 3600 for lost in day.lost} for day in days]
    labels = {lost.code: f"{lost.name.replace('_', ' ')}, {lost.first_s / 3600:.1f} h" for lost in total.lost}
    parts: list[Part] = [
        (Style(colour, labels[code], hatch), [hours.get(code, 0.0) for hours in by_code])
        for code, (colour, hatch) in zip(named, REASON_STYLES, strict=False)
    ]
    rest = [sum(h for code, h in hours.items() if code not in named) for hours in by_code]
    if any(rest):
        parts.append((Style(_MIDDLE, f"{OTHERS}, {sum(rest):.1f} h"), rest))
    return parts


def _energy(days: Sequence[Day], total: Day) -> Sequence[Part]:
    """A bar for each source that has joules."""
    parts: list[Part] = []
    for energy in total.energy:
        if energy.energy_j is not None and energy.source in SOURCES:
            style = SOURCES[energy.source]
            text = f"{style.text}:\n{joules(energy.energy_j)}"
            parts.append(
                (Style(style.colour, text, style.hatch), [_watt_hours(day, energy.source) for day in days])
            )
    return parts


def _watt_hours(day: Day, source: EnergySource) -> float:
    return sum(each.energy_j or 0.0 for each in day.energy if each.source is source) / 3600


def _tasks(total: Day) -> str:
    done = total.tasks.get(TaskState.DONE.value, 0)
    ended = ", ".join(
        f"{count:,} {state}" for state, count in total.tasks.items() if state != TaskState.DONE.value
    )
    preempted = sum(total.preemptions.values())
    lines = (
        f"{done:,} {'task' if done == 1 else 'tasks'} done",
        *([ended] if ended else []),
        f"{preempted:,} {'time' if preempted == 1 else 'times'} preempted",
    )
    return "\n".join(lines)


def _stack(axes: Axes, dates: Sequence[dt.date], parts: Sequence[Part]) -> None:
    base = [0.0] * len(dates)
    for style, heights in parts:
        _bars(axes, [_place(date) for date in dates], (style, heights), _width(dates), base)
        base = [low + height for low, height in zip(base, heights, strict=True)]


def _side_by_side(axes: Axes, dates: Sequence[dt.date], parts: Sequence[Part]) -> None:
    """Joules of different sources are not added up, so their bars are not stacked."""
    if not parts:
        axes.text(0.5, 0.5, "no joules", transform=axes.transAxes, ha="center", va="center", color=_DARK)
        axes.set_yticks([])
    width = _width(dates) / max(1, len(parts))
    for place, part in enumerate(parts):
        aside = (place - (len(parts) - 1) / 2) * width
        _bars(axes, [_place(date) + aside for date in dates], part, width)


def _bars(
    axes: Axes, places: Sequence[float], part: Part, width: float, base: Sequence[float] | None = None
) -> None:
    style, heights = part
    apart = len(places) <= DAYS_APART
    axes.bar(
        places,
        heights,
        width=width,
        bottom=base,
        color=style.colour,
        edgecolor=_EDGE,
        linewidth=0.4 if apart else 0.0,
        hatch=(style.hatch or None) if apart else None,
        label=style.text,
    )


def _width(dates: Sequence[dt.date]) -> float:
    return BAR if len(dates) <= DAYS_APART else 1.0


def _place(date: dt.date) -> float:
    return float(date2num(date))  # type: ignore[no-untyped-call]


def _label(axes: Axes, unit: str, title: str) -> None:
    """Its unit, a grid, and beside it what the colours mean."""
    axes.set_ylabel(unit, fontsize=_FONT_PT)
    axes.grid(axis="y", color=_LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    if not axes.get_legend_handles_labels()[0]:
        return
    legend = axes.legend(
        loc="upper left",
        bbox_to_anchor=(LEGEND_AT, 1.03),
        frameon=False,
        fontsize=_FONT_PT,
        title=title,
        reverse=True,
    )
    legend.set_alignment("left")
    legend.get_title().set_fontweight("bold")
    legend.get_title().set_fontsize(_FONT_PT)


def _date_axis(axes: Axes, dates: Sequence[dt.date]) -> None:
    axes.set_xlim(_place(dates[0]) - 0.55, _place(dates[-1]) + 0.55)
    if len(dates) <= DAYS_NAMED:
        axes.set_xticks(
            [_place(date) for date in dates], [f"{date:%a} {date.day}\n{date:%b}" for date in dates]
        )
        return
    locator = AutoDateLocator(minticks=6, maxticks=12)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _hours(seconds: float) -> str:
    """Minutes where hours would be nought, but never days: the axes are in hours."""
    return span(seconds) if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def _title(picture: Figure, history: History) -> None:
    total, first, last = history.total, history.days[0].day, history.days[-1].day
    when = str(last) if first == last else f"{first} to {last}"
    usable_s = total.ready_s + total.working_s
    picture.text(
        0.015,
        0.965,
        f"{history.vehicle or 'this car'}, {when}: working {_hours(total.working_s)},"
        f" usable {_hours(usable_s)} of {_hours(total.length_s)}",
        fontsize=17,
        fontweight="bold",
        va="center",
    )
    picture.text(0.015, 0.93, f"Days by the clocks of {history.time_zone}.", fontsize=_FONT_PT, va="center")
