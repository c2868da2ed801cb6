"""Which joules may stand in one picture: those of one meter, or of one model."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.throughput.results import Results, Row


@dataclass(frozen=True, slots=True)
class Joules:
    """A meter or a model that rows have their joules of. `suffix` ends the names of its pictures."""

    source: str
    meter: str
    suffix: str

    @property
    def words(self) -> str:
        """What stands in a title: a model is never told as a measurement."""
        if self.source == "model":
            return f"by a MODEL ({self.meter}), not measured"
        return f"measured ({self.meter})"

    def of(self, row: Row) -> bool:
        """Whether the joules of a row are of this kind."""
        return row.figures is not None and (row.figures.energy.source, row.figures.energy.meter) == (
            self.source,
            self.meter,
        )


def kinds(results: Results) -> Iterator[Joules]:
    """All of a file: the measured ones first, each kind in the order of its rows."""
    energies = [row.figures.energy for row in results.rows if row.figures is not None]
    for modelled, name in ((False, ""), (True, "-model")):
        found = dict.fromkeys(
            (energy.source, energy.meter)
            for energy in energies
            if energy.source != "none" and (energy.source == "model") is modelled
        )
        for number, (source, meter) in enumerate(found, start=1):
            yield Joules(source, meter, name if number == 1 else f"{name}-{number}")
