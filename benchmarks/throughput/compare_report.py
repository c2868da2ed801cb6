"""A comparison as lines to read."""

from collections.abc import Iterator, Sequence

from benchmarks.throughput import differences, titles
from benchmarks.throughput.compare import Compared, Comparison, Pair
from benchmarks.throughput.results import CONFIDENCE, Results, Row


def lines(comparison: Comparison) -> Iterator[str]:
    """The whole report; what must not be overlooked comes first."""
    for name, results in (("A", comparison.a), ("B", comparison.b)):
        yield f"{name}: {of(results)}"
    yield from (f"note: {each}" for each in differences.of_files(comparison.a, comparison.b))
    yield _basis(comparison)
    for pair in comparison.pairs:
        yield ""
        yield from _of_pair(pair)
    yield ""
    yield from _of_alone("only in A", comparison.alone.only_a)
    yield from _of_alone("only in B", comparison.alone.only_b)
    yield f"{comparison.regressions} regression(s) beyond {100 * comparison.terms.threshold:g}%"


def of(results: Results) -> str:
    """A file in a line: machine, commit, time."""
    known = results.provenance
    commit = known.git_commit[:12] + (" with changes" if known.git_dirty else "")
    return f"{known.cpu_model}, {known.cores} cores, commit {commit or 'unknown'}, {known.began_at}"


def _basis(comparison: Comparison) -> str:
    told = sum(each.ratio is not None for pair in comparison.pairs for each in pair.compared)
    more = comparison.terms.run_to_run
    besides = f", {more:.1%} from run to run taken into account" if more else ""
    return (
        f"B / A; all {told} intervals hold together with {CONFIDENCE:.0%} (each with {comparison.confidence:.3%})"
        f"{besides}"
    )


def _of_pair(pair: Pair) -> Iterator[str]:
    yield titles.title(pair.a)
    yield from (f"  note: {each}" for each in differences.of_rows(pair.a, pair.b))
    for name, row in (("A", pair.a), ("B", pair.b)):
        if row.figures is None:
            yield f"  failed in {name}: {_one_line(titles.failure(row))}"
    yield from (_of_quantity(each) for each in pair.compared)


def _of_quantity(compared: Compared) -> str:
    name, verdict = compared.quantity.name, compared.verdict.value
    between = compared.ratio
    if between is None:
        return f"  {name:<22} {verdict}: {compared.why}"
    if between.low is None or between.high is None:
        return f"  {name:<22} {between.value:>6.3f} {'':<17} {verdict}: {compared.why}"
    why = f": {compared.why}" if compared.why else ""
    return f"  {name:<22} {between.value:>6.3f} ({between.low:.3f} .. {between.high:.3f})  {verdict}{why}"


def _of_alone(where: str, rows: Sequence[Row]) -> Iterator[str]:
    yield from (
        f"{where}: {titles.title(row)}{f', failed: {_one_line(titles.failure(row))}' if row.failed else ''}"
        for row in rows
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
