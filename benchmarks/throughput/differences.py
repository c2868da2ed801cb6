"""What must be alike before two rows can be compared, and what a reader must know where files are not alike."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.throughput import titles
from benchmarks.throughput.results import Provenance, Results, Row
from firmware_shims.power.meter import Scope

BUSY: Final = "busy machine"
"""How a mark of that begins."""
SAME_RATE: Final = 0.01
"""Rates that differ by less are one rate: a search ends somewhere."""
ASKED_AT_A_RATE: Final = frozenset({"server", "constant"})
MACHINE: Final = (
    ("processor", "cpu_model"),
    ("cores", "cores"),
    ("architecture", "architecture"),
    ("kernel", "kernel"),
    ("governor", "governor"),
    ("clock source", "clock_source"),
    ("virtual machine", "hypervisor"),
    ("Python", "python"),
)


@dataclass(frozen=True, slots=True)
class Side:
    """A row, and where it comes from."""

    provenance: Provenance
    row: Row


def other_work(a: Side, b: Side) -> str:
    """Why these rows did not do the same work; empty when they did."""
    for what, one, other in (
        ("model file", a.row.model.sha256[:12], b.row.model.sha256[:12]),
        ("inputs", a.row.model.inputs_from, b.row.model.inputs_from),
    ):
        if one != other:
            return f"other {what}: {one} against {other}"
    return "other shapes of the inputs" if a.row.model.inputs != b.row.model.inputs else ""


def given_rates(a: Side, b: Side) -> str:
    """Why a throughput is no result: it was what was asked for."""
    used = (a.row.scenario, b.row.scenario)
    if any(each.name in ASKED_AT_A_RATE and not each.rate_found for each in used):
        return "the rate was given, not found"
    return ""


def other_load(a: Side, b: Side) -> str:
    """Why latencies cannot be compared: under another load they are others."""
    used, other = a.row.scenario, b.row.scenario
    if used.batch != other.batch:
        return f"of other batches: {used.batch} against {other.batch}"
    if used.rate_per_s is None or other.rate_per_s is None:
        return ""
    if abs(used.rate_per_s / other.rate_per_s - 1) > SAME_RATE:
        return f"at other rates: {used.rate_per_s:g} against {other.rate_per_s:g} a second"
    return ""


def other_joules(a: Side, b: Side) -> str:
    """Why joules cannot be compared: sources, and meters that measure different things, are never mixed."""
    one, other = a.row.figures, b.row.figures
    if one is None or other is None:
        return "failed"
    sources = (one.energy.source, other.energy.source)
    if "none" in sources:
        return (
            "no meter" if sources[0] == sources[1] else f"no meter in {'A' if sources[0] == 'none' else 'B'}"
        )
    kinds = [f"{_kind(each.energy.source)} ({each.energy.meter})" for each in (one, other)]
    if sources[0] != sources[1]:
        return f"joules of other kinds are never compared: {kinds[0]} against {kinds[1]}"
    scope = _scope(a)
    if one.energy.meter == other.energy.meter or (scope is not None and scope == _scope(b)):
        return ""
    return f"meters that need not measure the same: {kinds[0]} against {kinds[1]}"


def _kind(source: str) -> str:
    return "modelled" if source == "model" else f"measured, {source}"


def _scope(side: Side) -> str | None:
    """What the machine's meter measures, where the row's joules are its; None where words do not tell."""
    meter, figures = side.provenance.meter, side.row.figures
    if meter is None or figures is None or meter.name != figures.energy.meter:
        return None
    return None if meter.scope == Scope.RAILS.value else meter.scope


def of_files(a: Results, b: Results) -> Iterator[str]:
    """Lines about the files as wholes."""
    for name, results in (("A", a), ("B", b)):
        if results.quick:
            yield f"{name} is a quick run: a look, not a result"
        if results.partial:
            yield f"{name} is partial: the run was ended before its last row"
    known, other = a.provenance, b.provenance
    machine = [
        f"{what} {getattr(known, field)} against {getattr(other, field)}"
        for what, field in MACHINE
        if getattr(known, field) != getattr(other, field)
    ]
    if machine:
        yield f"machines differ: {'; '.join(machine)}"
    if versions := _changed(known.versions, other.versions):
        yield f"versions differ: {versions}"


def of_rows(a: Row, b: Row) -> Iterator[str]:
    """Lines about the settings of a pair, and what each row is marked with."""
    if (a.backend.use, a.backend.device) != (b.backend.use, b.backend.device):
        yield f"{titles.backend(a)} against {titles.backend(b)}"
    elif options := _changed(a.backend.options, b.backend.options):
        yield f"options differ: {options}"
    for what, field in (
        ("batch", "batch"),
        ("latency bound", "latency_bound_ms"),
        ("percentile", "percentile"),
    ):
        one, other = getattr(a.scenario, field), getattr(b.scenario, field)
        if one != other:
            yield f"{what} {one} against {other}"
    yield from (f"A and B: {mark}" for mark in a.marks if mark in b.marks)
    yield from (f"A: {mark}" for mark in a.marks if mark not in b.marks)
    yield from (f"B: {mark}" for mark in b.marks if mark not in a.marks)


def busy(a: Row, b: Row) -> str:
    """Which side's machine had other work beside a row, as `run` has marked it; empty where none had."""
    sides = [name for name, row in (("A", a), ("B", b)) if any(mark.startswith(BUSY) for mark in row.marks)]
    return f"the machine of {' and '.join(sides)} was busy with something else" if sides else ""


def _changed(known: Mapping[str, object], other: Mapping[str, object]) -> str:
    names = sorted(name for name in known.keys() | other.keys() if known.get(name) != other.get(name))
    return ", ".join(f"{name} {known.get(name, '-')} against {other.get(name, '-')}" for name in names)
