"""The roofline of the FSD computer's NPU: what the model of the published chip says of each layer of a network.

What a layer computes for each byte that it moves to and from DRAM, against how fast it computes; above it the roofs of
DRAM and of the array (Williams, Waterman and Patterson, CACM 52, 2009). Nothing here is measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from backends.explanation import ExplainedLayer, Explanation
from benchmarks.throughput.plot_style import LOOKS, Look, figure, plain
from benchmarks.throughput.results import Results
from firmware_shims.fsd.chip import FSD, Chip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT_INCHES: Final = 4.3
TERA: Final = 1e12
LITTLE: Final = 0.02
"""Of the array: depthwise convolutions, and those of a few values."""
AREA: Final = 700.0
"""Points squared for a layer that takes all of the time."""
LEAST_AREA: Final = 10.0
LEGEND_AREA: Final = 30.0
BEHIND_TEXT: Final = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
KINDS: Final[dict[str, Look]] = {
    "convolution": LOOKS[0],
    "convolution that uses below 2 % of the array": LOOKS[5],
    "product of matrices": LOOKS[2],
}


@dataclass(frozen=True, slots=True)
class Point:
    """A layer: operations a byte of DRAM (None: it moves none), operations a second, and its share of the time."""

    kind: str
    ops_per_byte: float | None
    ops_per_s: float
    share: float


def points(found: Explanation) -> list[Point]:
    """Of the layers on the NPU that compute."""
    layers = [layer for layer in found.layers if layer.place == "npu" and layer.seconds and layer.macs]
    return [_point(layer, found.seconds) for layer in layers]


def _point(layer: ExplainedLayer, of_s: float) -> Point:
    ops, seconds = 2 * layer.macs, layer.seconds or 1.0
    return Point(
        _kind(layer), ops / layer.dram_bytes if layer.dram_bytes else None, ops / seconds, seconds / of_s
    )


def _kind(layer: ExplainedLayer) -> str:
    if layer.operator in {"MatMul", "Gemm"}:
        return "product of matrices"
    little = (layer.utilisation or 0.0) < LITTLE
    return "convolution that uses below 2 % of the array" if little else "convolution"


def drawn(model: str, found: Explanation, results: Results, chip: Chip = FSD) -> "Figure | None":
    """Of one network; None where nothing of it computes on the NPU."""
    known = points(found)
    if not known:
        return None
    title = (
        f"{model} on one NPU by a MODEL of the published chip, not measured\n"
        f"{found.seconds * 1e3:.3g} ms and {found.joules * 1e3:.3g} mJ a row, {found.utilisation:.1%} of the array in use"
    )
    from matplotlib.collections import PathCollection  # noqa: PLC0415 - as in plot_style

    page = figure(HEIGHT_INCHES, "", results)
    axes = page.subplots()
    whole = Point(
        "",
        2 * found.npu_macs / found.dram_bytes if found.dram_bytes else None,
        2 * found.npu_macs / found.seconds,
        1,
    )
    ridge = chip.peak_ops_per_s / chip.dram_bytes_per_s
    finite = [ridge, *(point.ops_per_byte for point in (*known, whole) if point.ops_per_byte is not None)]
    left, right = min(finite) / 3, max(finite) * 3
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right * 4)
    axes.set_ylim(min(point.ops_per_s for point in known) / TERA / 2, chip.peak_ops_per_s / TERA * 2)
    _roofs(axes, chip, left, right)
    _scatter(axes, known, right)
    axes.plot(
        whole.ops_per_byte or right * 2,
        whole.ops_per_s / TERA,
        marker="*",
        ms=13,
        color="black",
        ls="",
        label="the whole network",
    )
    plain(axes.xaxis)
    plain(axes.yaxis)
    axes.set_xlabel("operations for each byte of DRAM traffic")
    axes.set_ylabel("10¹² operations/s")
    legend = page.legend(loc="outside upper center", ncols=2, title=title, title_fontsize=10, markerscale=0.7)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):  # they are as large as the first layer of their kind
            handle.set_sizes([LEGEND_AREA])
    return page


def _roofs(axes: "Axes", chip: Chip, left: float, right: float) -> None:
    peak, bandwidth = chip.peak_ops_per_s / TERA, chip.dram_bytes_per_s / TERA
    ridge = peak / bandwidth
    axes.plot([left, ridge, right], [bandwidth * left, peak, peak], color="black", lw=1.5)
    axes.text(
        ridge * 1.1, peak * 1.08, f"array: {peak:.1f} · 10¹²/s", va="bottom", bbox=BEHIND_TEXT, zorder=5
    )
    place = left**0.75 * ridge**0.25
    axes.text(
        place,
        bandwidth * place * 1.15,
        f"DRAM: {chip.dram_bytes_per_s / 1e9:.0f} GB/s",
        ha="center",
        va="bottom",
        rotation=math.degrees(math.atan(bandwidth)),
        rotation_mode="anchor",
        transform_rotates_text=True,
        bbox=BEHIND_TEXT,
        zorder=5,
    )


def _scatter(axes: "Axes", known: Sequence[Point], beyond: float) -> None:
    """Layers without DRAM traffic stand behind a line at the right edge, side by side."""
    axes.axvspan(beyond, axes.get_xlim()[1], color="#eeeeee", zorder=0)
    axes.text(
        beyond * 1.1, 0.01, "no DRAM traffic", transform=axes.get_xaxis_transform(), va="bottom", fontsize=7
    )
    without = [point for point in known if point.ops_per_byte is None]
    places = {
        id(point): beyond * 1.3 * 2.4 ** (number / len(without)) for number, point in enumerate(without)
    }
    for kind, look in KINDS.items():
        mine = [point for point in known if point.kind == kind]
        if mine:
            axes.scatter(
                [point.ops_per_byte or places[id(point)] for point in mine],
                [point.ops_per_s / TERA for point in mine],
                s=[max(LEAST_AREA, AREA * point.share) for point in mine],
                color=look.colour,
                marker=look.marker,
                alpha=0.6,
                edgecolors="black",
                linewidths=0.4,
                label=f"{kind}: {sum(point.share for point in mine):.0%} of the time",
            )
    moving = 1 - sum(point.share for point in known)
    axes.plot([], [], ls="", label=f"not shown, as they only move bytes: {moving:.0%}")
    axes.plot([], [], ls="", label="area of a mark: the layer's share of the time")
