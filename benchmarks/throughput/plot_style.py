"""How the pictures look: at the width of a page, in print without colour, to eyes that tell few colours.

Colours are Okabe and Ito's (Color Universal Design, 2008), which differ to every kind of colour vision; hatching,
markers and dashes say the same once more. Text is never below 7 points at the width it is drawn for.
"""

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.throughput.results import Results, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

PAGE_INCHES: Final = 7.2
DOTS_PER_INCH: Final = 200
SMALL_POINTS: Final = 7
TITLE_POINTS: Final = 10
LINE_INCHES: Final = 0.16
"""Of the title."""
TITLE_CHARS, SMALL_CHARS = 85, 125
LABEL_GAP: Final = 0.14
"""Of the height of a panel: labels keep so much of a distance."""


def styled() -> AbstractContextManager[None]:
    """Pictures that are made and saved in here look alike."""
    import matplotlib as mpl  # noqa: PLC0415 - the other commands run without it

    return mpl.rc_context(
        {
            "font.size": 8,
            "axes.titlesize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.6,
            "hatch.linewidth": 0.6,
            "lines.linewidth": 1.2,
            "lines.markersize": 4,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "svg.hashsalt": "parkwatt",
        }
    )


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that tells one thing from the others."""

    colour: str
    hatch: str
    marker: str
    dashes: str


LOOKS: Final = (
    Look("#0072B2", "", "o", "-"),
    Look("#E69F00", "///", "s", "--"),
    Look("#009E73", "...", "^", "-."),
    Look("#CC79A7", "xxx", "D", ":"),
    Look("#56B4E9", "\\\\\\", "v", "-"),
    Look("#D55E00", "+++", "P", "--"),
    Look("#7F7F7F", "ooo", "X", "-."),  # their yellow is not seen on white
)
BARE: Final = Look("#000000", "", "", ":")


def looks(rows: Sequence[Row]) -> dict[str, Look]:
    """One for each backend, the same in every picture of a file."""
    names = sorted({row.backend.use for row in rows})
    return {name: LOOKS[number % len(LOOKS)] for number, name in enumerate(names)}


def figure(height_inches: float, title: str, results: Results) -> "Figure":
    """An empty page with its title above and its machine below; to be drawn on within `styled()`."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    above = _wrapped(title, TITLE_CHARS)
    size = PAGE_INCHES, height_inches + LINE_INCHES * above.count("\n")
    page = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    page.suptitle(above, fontsize=TITLE_POINTS)
    page.supxlabel(_wrapped(_machine(results), SMALL_CHARS), fontsize=SMALL_POINTS, color="#444444")
    return page


def _wrapped(text: str, chars: int) -> str:
    """Within the width of the page: meters may have long names."""
    return "\n".join(textwrap.fill(line, chars) for line in text.splitlines())


def _machine(results: Results) -> str:
    known = results.provenance
    quick = "QUICK RUN, a look and no result. " if results.quick else ""
    return f"{quick}{known.cpu_model}, {known.cores} cores, commit {known.git_commit[:12] or 'unknown'}, {known.began_at}"


def saved(page: "Figure", folder: Path, name: str) -> list[Path]:
    """As PNG and SVG, the same bytes each time."""
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    page.savefig(png, metadata={"Software": None})
    page.savefig(svg, metadata={"Date": None})
    return [png, svg]


def plain(axis: "Axis", *, steps: Sequence[float] = ()) -> None:
    """Ticks as numbers that people say: 0.5, 10, 2,000. `steps`: where a logarithmic axis has them, within a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 - as above

    if steps:
        axis.set_major_locator(LogLocator(subs=tuple(steps), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def labelled(axes: "Axes", labels: Sequence[tuple[float, str, Look]]) -> None:
    """Texts (height as a share of the panel's, text, look) right of a panel, as near to their heights as they all can.

    In black behind the look's marker: half of the colours are no colours to read.
    """
    ordered = sorted(labels, key=lambda label: label[0])
    for place, (_, text, look) in zip(apart([label[0] for label in ordered]), ordered, strict=True):
        axes.plot(1.04, place, color=look.colour, marker=look.marker, transform=axes.transAxes, clip_on=False)
        axes.text(1.07, place, text, transform=axes.transAxes, va="center")


def apart(places: Sequence[float]) -> list[float]:
    """Rising shares of a height moved apart by `LABEL_GAP`, none above 1 as long as there is room below."""
    moved: list[float] = []
    for place in places:
        moved.append(place if not moved else max(place, moved[-1] + LABEL_GAP))
    ceiling = 1.0
    for index in range(len(moved) - 1, -1, -1):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - LABEL_GAP
    return moved


def without_data(axes: "Axes", text: str) -> None:
    """An empty panel that says why."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#444444")
    axes.set_xticks([])
    axes.set_yticks([])
