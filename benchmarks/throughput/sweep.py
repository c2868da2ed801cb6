"""Row after row into a folder: what is there is valid at any moment, and a row that fails costs itself only."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import structs

from benchmarks.throughput import loadgen, markdown_table, provenance, results, titles
from benchmarks.throughput.asked import Asked, Means, Meters, not_measured
from benchmarks.throughput.catalogue import Entry, Subject, UnknownNameError, prepared
from benchmarks.throughput.plan import Planned
from benchmarks.throughput.progress import Progress
from benchmarks.throughput.results import Figures, Loadgen, Provenance, Results, Row, ScenarioUsed
from benchmarks.throughput.rows import measured
from benchmarks.throughput.scenarios import Length
from benchmarks.throughput.worker_side import WorkerSide
from benchmarks.wheels import WheelMissingError

PAGE: Final = "results.md"
LOADGEN: Final = "loadgen"


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every row of a run."""

    length: Length
    rate_per_s: float | None = None
    latency_bound_ms: float | None = None
    seed: int = 1
    with_loadgen: bool = False


@dataclass
class Sweep:
    """A run's rows, and the folder that they are written to after each of them."""

    folder: Path
    provenance: Provenance
    terms: Terms
    meters: Meters
    progress: Progress
    rows: list[Row] = field(default_factory=list)

    async def run(self, planned: Sequence[Planned]) -> None:
        """Measure them all. Ended in the middle, the folder holds the rows that were done.

        Raises `UnknownNameError` for a folder that cannot be written to.
        """
        self._begin()
        with tempfile.TemporaryDirectory(prefix="parkwatt-bench-") as scratch:
            subject: Subject | WheelMissingError | None = None
            entry: Entry | None = None
            for each in planned:
                if each.entry is not entry:
                    entry, subject = each.entry, _prepared(each.entry, Path(scratch))
                self.progress.begin(each.title)
                row = await self._row(each, subject)
                self.rows.append(row)
                self._write(partial_run=True)
                self.progress.end(_told(row), failed=row.figures is None)
        self._write(partial_run=False)

    async def _row(self, planned: Planned, subject: Subject | WheelMissingError | None) -> Row:
        asked = Asked(
            entry=planned.entry,
            choice=planned.choice,
            scenario=planned.scenario,
            length=self.terms.length,
            batch=planned.batch,
            rate_per_s=self.terms.rate_per_s,
            latency_bound_ms=self.terms.latency_bound_ms,
            seed=self.terms.seed,
        )
        if not isinstance(subject, Subject):
            return not_measured(asked, str(subject))
        with_loadgen = partial(self._loadgen, planned, subject) if self.terms.with_loadgen else None
        return await measured(asked, subject, Means(self.meters, self.progress.share, with_loadgen))

    async def _loadgen(
        self, planned: Planned, subject: Subject, side: WorkerSide, scenario: ScenarioUsed, ours: Figures
    ) -> Loadgen:
        folder = self.folder / LOADGEN / planned.title.replace(" ", "-").replace(":", "-")
        folder.mkdir(parents=True)
        found = await loadgen.beside(side, subject.rows, scenario, ours, folder)
        return structs.replace(found, logs=f"{LOADGEN}/{found.logs}") if found.logs else found

    def _begin(self) -> None:
        """Make the folder, with results that have no rows yet."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(partial_run=True)
        except OSError as error:
            raise UnknownNameError(f"--out {self.folder}: {error.strerror}: name another folder") from error

    def _write(self, *, partial_run: bool) -> None:
        found = Results(
            schema=results.SCHEMA,
            provenance=self.provenance,
            quick=self.terms.length.quick,
            partial=partial_run,
            ended_at=provenance.now(),
            rows=tuple(self.rows),
        )
        results.write(self.folder, found)
        page = self.folder / PAGE
        part = page.with_suffix(".part")
        part.write_text(markdown_table.page(found))
        part.replace(page)


def _prepared(entry: Entry, scratch: Path) -> Subject | WheelMissingError:
    try:
        return prepared(entry, scratch)
    except WheelMissingError as error:
        return error


def _told(row: Row) -> str:
    """In a few words."""
    if row.figures is None:
        return titles.failure(row)
    figures = row.figures
    per_joule = figures.energy.inferences_per_joule
    watts = (
        f", {per_joule.value:.3g} inferences/J ({figures.energy.source})"
        if per_joule
        else ", no meter"
        if figures.energy.source == "none"
        else ""
    )
    return f"{figures.throughput_per_s.value:.4g}/s, p99 {figures.latency.p99_ms.value:.3g} ms{watts}"
