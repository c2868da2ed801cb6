"""Results as Markdown: `results.md` beside a results file, and the table of the README.

Measured and modelled joules stand in columns of their own: nobody takes one for the other, or one through the other.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.throughput import titles
from benchmarks.throughput.results import Energy, Figures, Interval, Loadgen, Results, Row

NOTHING: Final = "-"
NO_METER: Final = "no meter"
DIGITS: Final = 3
FIGURES: Final = re.compile(r"(?<![A-Za-z\d.,])\d[\d.,]*")

Kind = Literal["measured", "model"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: what stands over it, and what a row with figures has in it."""

    title: str
    of: Callable[[Row, Figures], str]
    right: bool = True


def page(results: Results) -> str:
    """`results.md`: the machine, every row with its intervals, what failed and what was marked."""
    parts = [
        "# Throughput per watt",
        "",
        *_machine(results),
        "",
        *_table(results.rows, _full(results.rows)),
        "",
    ]
    parts += _below(results, _every_mark(results))
    return "\n".join(parts).rstrip() + "\n"


def readme(results: Results, source: str) -> str:
    """The README's table: the machine named above it, the command that makes it below. `source`: the results file."""
    lines = [
        *_machine(results),
        "",
        *_table(results.rows, _short(results.rows)),
        "",
        *_below(results, _kinds_of_marks(results)),
    ]
    lines.append(f"Made by `python -m benchmarks table {source}` from a run of `{_command(results)}`.")
    return "\n".join(lines)


def _machine(results: Results) -> Iterator[str]:
    known = results.provenance
    virtual = ", virtual machine" if known.hypervisor else ""
    memory_gib = known.memory_bytes / 2**30
    versions = ", ".join(f"{name} {version}" for name, version in sorted(known.versions.items()))
    commit = f"{known.git_commit[:12] or 'unknown'}{' with changes' if known.git_dirty else ''}"
    yield (
        f"{known.cpu_model}, {known.cores} cores, {memory_gib:.0f} GiB{virtual}; Linux {known.kernel}, "
        f"Python {known.python}; {versions}; commit {commit}; {known.began_at}."
    )
    meter = known.meter
    if meter is None:
        why = f" ({known.why_no_meter})" if known.why_no_meter else ""
        counting = {
            row.figures.energy.meter for row in results.rows if row.figures and _counts_itself(row.figures)
        }
        besides = f"; counted by the device itself: {', '.join(sorted(counting))}" if counting else ""
        yield f"Energy: {NO_METER} of the machine{why}{besides}."
    else:
        yield f"Energy: {meter.name} ({meter.source}), {meter.scope}."
    if results.quick:
        yield "**A quick run: a look, not a result.**"
    if results.partial:
        yield "**Partial: the run was ended before its last row.**"


def _counts_itself(figures: Figures) -> bool:
    """Of a machine without a meter."""
    return figures.energy.source not in {"none", "model"}


def _full(rows: Sequence[Row]) -> list[Column]:
    return [
        *_names(),
        Column("inferences/s", lambda _, figures: shown(figures.throughput_per_s)),
        Column("p50 ms", lambda _, figures: shown(figures.latency.p50_ms)),
        Column("p90 ms", lambda _, figures: shown(figures.latency.p90_ms)),
        Column("p99 ms", lambda _, figures: shown(figures.latency.p99_ms)),
        Column("CPU ms/inference", lambda _, figures: shown(figures.cpu_s_per_inference, 1e3)),
        *_joules(rows, both_ways=True),
        Column("throughput, of bare", lambda _, figures: _of_bare(figures)),
        Column("CPU, of bare", lambda _, figures: shown(figures.bare.cpu_ratio) if figures.bare else NOTHING),
        Column("MiB", lambda _, figures: number(figures.memory.peak_rss_bytes / 2**20)),
        Column("load ms", lambda _, figures: number(figures.memory.load_s * 1e3)),
        Column("cancel ms", lambda _, figures: _cancel(figures)),
        *_loadgen(rows),
    ]


def _loadgen(rows: Sequence[Row]) -> Iterator[Column]:
    """Ours as a share of what MLPerf's load generator saw, where it was asked."""
    if any(row.loadgen for row in rows):
        yield Column("throughput, p50, of loadgen's", lambda row, _: _beside_loadgen(row.loadgen))


def _beside_loadgen(found: Loadgen | None) -> str:
    if found is None or found.failed:
        return NOTHING
    ratios = (found.throughput_ratio, found.p50_ratio)
    return ", ".join(NOTHING if ratio is None else number(ratio) for ratio in ratios)


def _short(rows: Sequence[Row]) -> list[Column]:
    return [
        *_names(),
        Column("inferences/s", lambda _, figures: shown(figures.throughput_per_s)),
        Column("p99 ms", lambda _, figures: shown(figures.latency.p99_ms)),
        Column("CPU ms/inference", lambda _, figures: shown(figures.cpu_s_per_inference, 1e3)),
        *_joules(rows, both_ways=False),
        Column("throughput, of bare", lambda _, figures: _of_bare(figures)),
    ]


def _names() -> list[Column]:
    return [
        Column("model", lambda row, _: f"{row.model.id}, {row.model.precision}", right=False),
        Column("backend", lambda row, _: titles.backend(row), right=False),
        Column("scenario", lambda row, _: titles.scenario(row), right=False),
    ]


def _joules(rows: Sequence[Row], *, both_ways: bool) -> Iterator[Column]:
    """Measured joules, always: that there is no meter is said; modelled ones where there are any, for themselves."""
    kinds: list[Kind] = ["measured"]
    if any(row.figures and row.figures.energy.source == "model" for row in rows):
        kinds.append("model")
    for kind in kinds:
        if both_ways:
            yield Column(f"J/inference, {kind}", _energy(kind, lambda found: found.joules_per_inference))
        yield Column(f"inferences/J, {kind}", _energy(kind, lambda found: found.inferences_per_joule))
    meters = {row.figures.energy.meter for row in rows if row.figures and row.figures.energy.source != "none"}
    if len(meters) > 1:
        yield Column("meter", lambda _, figures: cell(figures.energy.meter) or NO_METER, right=False)


def _energy(kind: Kind, of: Callable[[Energy], Interval | None]) -> Callable[[Row, Figures], str]:
    def cell(_: Row, figures: Figures) -> str:
        source = figures.energy.source
        if source == "none":
            return NO_METER if kind == "measured" else NOTHING
        if (source == "model") is not (kind == "model"):
            return NOTHING
        figure = of(figures.energy)
        return shown(figure) if figure else "below the meter's noise"

    return cell


def _of_bare(figures: Figures) -> str:
    return shown(figures.bare.throughput_ratio) if figures.bare else NOTHING


def _cancel(figures: Figures) -> str:
    bound_s = figures.memory.cancel_bound_s
    return "by signal" if bound_s is None else number(bound_s * 1e3)


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[str]:
    yield _line(column.title for column in columns)
    yield _line("--:" if column.right else ":--" for column in columns)
    for row in rows:
        if row.figures is not None:
            yield _line(cell(column.of(row, row.figures)) for column in columns)


def _below(results: Results, notes: Sequence[str]) -> list[str]:
    """What a reader of the table must know besides."""
    lines = ["In brackets: the bounds between which a figure lies with 95 %."]
    meters = {
        row.figures.energy.meter
        for row in results.rows
        if row.figures is not None and row.figures.energy.source == "model"
    }
    if meters:
        lines.append(f"Modelled joules are not measured: {', '.join(sorted(meters))}.")
    failed = [
        f"- {titles.title(row)} failed: {cell(titles.failure(row))}"
        for row in results.rows
        if row.figures is None
    ]
    return [*lines, "", *failed, *notes, ""] if failed or notes else [*lines, ""]


def _every_mark(results: Results) -> list[str]:
    return [f"- {titles.title(row)}: {cell(mark)}" for row in results.rows for mark in row.marks]


def _kinds_of_marks(results: Results) -> list[str]:
    """Marks that differ in their numbers only, as one line each."""
    kinds = Counter(FIGURES.sub("...", cell(mark)) for row in results.rows for mark in row.marks)
    return [f"- {count} of {len(results.rows)} rows: {kind}" for kind, count in kinds.items()]


def _command(results: Results) -> str:
    return " ".join(("python -m benchmarks", *results.provenance.command))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    """Text that cannot end its cell, its line or the table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def shown(interval: Interval, scale: float = 1.0) -> str:
    """`261 (255 .. 268)`; the value alone where there are no bounds."""
    value = number(interval.value * scale)
    if interval.low is None or interval.high is None:
        return value
    return f"{value} ({number(interval.low * scale)} .. {number(interval.high * scale)})"


def number(value: float) -> str:
    """Three digits that count, thousands with commas, never an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (DIGITS - 1):
        return f"{value:,.0f}"
    text = f"{value:#.{DIGITS}g}"
    return (f"{float(text):.{DIGITS + 9}f}".rstrip("0") if "e" in text else text).rstrip(".")
