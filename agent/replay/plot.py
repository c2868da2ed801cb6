"""The course of a replayed day as a picture (PNG, 1600 x 900). The only module that needs matplotlib."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from agent.protocol.messages import Mode
from agent.replay.account import Place
from agent.replay.course import Bar, Course, Curve
from agent.replay.main import Replayed
from agent.replay.report import Report, wall_clock
from agent.replay.table import unit_for
from firmware_shims import vss

SIZE_IN: Final = (16.0, 9.0)
DPI: Final = 100

# Okabe and Ito's palette, which people with any kind of colour vision can tell apart (jfly.uni-koeln.de/color, 2008).
_GREEN, _ORANGE, _BLUE, _SKY = "#009E73", "#E69F00", "#0072B2", "#56B4E9"
_VERMILION, _PURPLE, _YELLOW = "#D55E00", "#CC79A7", "#F0E442"
_DARK, _MIDDLE, _LIGHT = "#333333", "#999999", "#DDDDDD"


@dataclass(frozen=True, slots=True)
class Style:
    """How a bar is drawn and what it is called."""

    colour: str
    text: str
    hatch: str | None = None

    def patch(self) -> Patch:
        """Its entry in the legend."""
        return Patch(facecolor=self.colour, edgecolor=self.edge, hatch=self.hatch, label=self.text)

    @property
    def edge(self) -> str:
        """A hatch is drawn in the colour of the edge."""
        return self.colour if self.hatch is None else _MIDDLE


_GAP: Final = Style("white", "gap: the car told nothing", "////")
PLACES: Final[Mapping[Place, Style]] = {
    Place.PROVEN: Style(_BLUE, "plugged in, proven on grid power"),
    Place.CHARGE_ENDED: Style(_SKY, "plugged in, charging had ended\nor not begun: not proven"),
    Place.UNPROVEN: Style(_PURPLE, "plugged in, not proven"),
    Place.UNPLUGGED: Style(_MIDDLE, "parked, not plugged in"),
    Place.OWNER: Style(_VERMILION, "driving, or the owner at the car"),
    Place.UNCLEAR: Style(_YELLOW, "not told whether parked\nor plugged in"),
    Place.GAP: _GAP,
}
MODES: Final[Mapping[Mode, Style]] = {
    Mode.READY: Style(_GREEN, "ready: usable"),
    Mode.SETTLING: Style(_ORANGE, "settling"),
    Mode.DRAINING: Style(_PURPLE, "draining"),
    Mode.BLOCKED: Style(_LIGHT, "blocked"),
}
BLOCKERS: Final[Mapping[bool, Style]] = {
    True: Style(_DARK, "the first in the policy's order"),
    False: Style("#BBBBBB", "blocks, too"),
}
CURVES: Final = (
    (vss.CHARGE_LINE_POWER, "charge line, kW", 1 / 1000),
    (vss.PACK_CURRENT, "pack current, A\n(+ charges)", 1.0),
    (vss.SOC, "charge, %", 1.0),
)
_LANES_HEIGHT: Final = 1.3
_BLOCKER_HEIGHT: Final = 0.28
_CURVE_HEIGHT: Final = 1.5
_FONT_PT: Final = 11


def draw(replayed: Replayed, file: Path) -> None:
    """Write the picture; OSError when the file cannot be written."""
    picture = figure(replayed)
    picture.savefig(file, format="png")


def figure(replayed: Replayed) -> Figure:
    """Lanes for where the car was, mode and blockers, and curves of power, current and charge, over one time axis."""
    report, course = replayed.report, replayed.course
    picture = Figure(figsize=SIZE_IN, dpi=DPI)
    FigureCanvasAgg(picture)
    heights = [_LANES_HEIGHT, _BLOCKER_HEIGHT * max(len(report.reasons), 1), *[_CURVE_HEIGHT] * len(CURVES)]
    lanes, blockers, *curves = picture.subplots(
        len(heights), 1, sharex=True, gridspec_kw={"height_ratios": heights, "hspace": 0.12}
    )
    picture.subplots_adjust(left=0.15, right=0.785, top=0.88, bottom=0.06)
    axis = TimeAxis(course, report, replayed.zone)
    _draw_lanes(lanes, axis, course)
    _draw_blockers(blockers, axis, course, report)
    gaps = [bar for bar in course.places if bar.what is Place.GAP]
    for axes, (path, label, scale) in zip(curves, CURVES, strict=True):
        _draw_curve(axes, axis, course.curves[path], gaps, scale)
        axes.set_ylabel(label, fontsize=_FONT_PT)
    picture.align_ylabels(curves)
    axis.label(curves[-1])
    _title(picture, report)
    _legend(picture, course)
    return picture


class TimeAxis:
    """Stamps of the log as places on the x axis: dates of the wall clock where it has one."""

    def __init__(self, course: Course, report: Report, zone: dt.tzinfo) -> None:
        self._zone = zone
        self._from_ns, self._to_ns = course.from_ns or 0, course.to_ns
        self._dated = wall_clock(self._from_ns, zone) is not None
        self._unit = unit_for(report.log_s)
        self._ns_per_x = (86_400 if self._dated else self._unit.seconds) * 1e9

    def x(self, at_ns: int) -> float:
        """Where a stamp lies: days since 1970 as matplotlib has it, or units since the log's zero."""
        return at_ns / self._ns_per_x

    def box(self, bar: Bar[Any]) -> tuple[float, float]:
        """Left edge and width of a bar."""
        return self.x(bar.from_ns), (bar.to_ns - bar.from_ns) / self._ns_per_x

    def steps(self, curve: Curve) -> tuple[list[float], list[float]]:
        """The points of a curve, the last value kept to the log's end."""
        return [self.x(at_ns) for at_ns in (*curve.at_ns, self._to_ns)], [*curve.values, *curve.values[-1:]]

    def label(self, axes: Axes) -> None:
        """Ticks, limits and what the axis counts."""
        if self._to_ns > self._from_ns:
            axes.set_xlim(self.x(self._from_ns), self.x(self._to_ns))
        if self._dated:
            locator = AutoDateLocator(tz=self._zone)  # type: ignore[no-untyped-call]
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(
                ConciseDateFormatter(locator, tz=self._zone)  # type: ignore[no-untyped-call]
            )
        else:
            axes.set_xlabel(f"{self._unit.name} on the log's clock")


def _draw_lanes(axes: Axes, axis: TimeAxis, course: Course) -> None:
    """The two lanes on top: where the car was, and the mode."""
    for place, style in PLACES.items():
        _draw_bars(axes, axis, 1.0, style, [bar for bar in course.places if bar.what is place])
    for mode, style in MODES.items():
        _draw_bars(axes, axis, 0.0, style, [bar for bar in course.modes if bar.what is mode])
    axes.set_yticks([1, 0], ["where", "mode"], fontsize=_FONT_PT)
    axes.set_ylim(-0.5, 1.5)


def _draw_blockers(axes: Axes, axis: TimeAxis, course: Course, report: Report) -> None:
    """A thin lane for each reason, with its time in all."""
    unit = unit_for(report.log_s)
    labels = []
    for row, lost in enumerate(report.reasons):
        for first, style in BLOCKERS.items():
            bars = [bar for bar in course.blockers[lost.code] if bar.what is first]
            _draw_bars(axes, axis, row, style, bars)
        labels.append(f"{lost.name.replace('_', ' ')} {unit.of(lost.any_s).strip()} {unit.name}")
    axes.set_yticks(range(len(labels)), labels, fontsize=_FONT_PT)
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)


def _draw_bars(axes: Axes, axis: TimeAxis, row: float, style: Style, bars: Sequence[Bar[Any]]) -> None:
    axes.broken_barh(
        [axis.box(bar) for bar in bars],
        (row - 0.38, 0.76),
        facecolor=style.colour,
        edgecolor=style.edge,
        hatch=style.hatch,
        linewidth=0.6,  # so that a minute of a day is a line that can be seen
    )


def _draw_curve(axes: Axes, axis: TimeAxis, curve: Curve, gaps: Sequence[Bar[Place]], scale: float) -> None:
    if all(map(math.isnan, curve.values)):
        axes.text(
            0.5, 0.5, "not in the log", transform=axes.transAxes, ha="center", va="center", color=_MIDDLE
        )
        axes.set_yticks([])
        return
    places, values = axis.steps(curve)
    axes.step(places, [scale * value for value in values], where="post", color=_BLUE, linewidth=1.4)
    for left, width in map(axis.box, gaps):
        axes.axvspan(left, left + width, facecolor="white", edgecolor=_LIGHT, hatch=_GAP.hatch, linewidth=0)
    axes.grid(axis="y", color=_LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(picture: Figure, course: Course) -> None:
    """One column on the right: what the bars mean, of those that occur."""
    places = {bar.what for bar in course.places}
    modes = {bar.what for bar in course.modes}
    firsts = {bar.what for bars in course.blockers.values() for bar in bars}
    sections = (
        ("where", [style for place, style in PLACES.items() if place in places]),
        ("\nmode", [style for mode, style in MODES.items() if mode in modes]),
        ("\nwhy there was no work", [style for first, style in BLOCKERS.items() if first in firsts]),
    )
    handles, headings = [], set()
    for heading, styles in sections:
        headings.add(heading)
        handles += [Patch(alpha=0, label=heading), *(style.patch() for style in styles)]
    legend = picture.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.787, 0.893), frameon=False, fontsize=_FONT_PT
    )
    for text in legend.get_texts():
        if text.get_text() in headings:
            text.set_fontweight("bold")


def _title(picture: Figure, report: Report) -> None:
    """The key figures above everything."""
    unit, places = unit_for(report.log_s), report.places

    def told(seconds: float) -> str:
        return f"{unit.of(seconds).strip()} {unit.name}"

    picture.text(
        0.015,
        0.96,
        f"{Path(report.log.file).name}, {report.log.begins} to {report.log.ends}: usable {told(report.ready_s)} of {told(report.log_s)}",
        fontsize=18,
        fontweight="bold",
        va="center",
    )
    picture.text(
        0.015,
        0.915,
        f"Plugged in {told(places.plugged_in_s)}: proven on grid power {told(places.proven_s)}, charging ended or"
        f" not begun {told(places.charge_ended_s)}.  Gaps {told(places.gap_s)}.  Starts: {report.starts}."
        f"  Computer {report.rules.compute_w:g} W.",
        fontsize=12,
        va="center",
    )
