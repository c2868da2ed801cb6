"""Whether our figures and those of MLPerf's own load generator are the same."""

from typing import Final

from benchmarks.throughput.results import Loadgen

MOST_APART: Final = 0.05


def disagreements(found: Loadgen) -> list[str]:
    """Marks of a row: what the load generator saw otherwise, why its test is not valid, or why there is none."""
    if found.failed:
        return [f"loadgen: no test: {found.failed}"]
    marks = [f"loadgen: its test is not valid: {why}" for why in found.why_invalid]
    ratios = {"throughput": found.throughput_ratio, "p50": found.p50_ratio}
    return marks + [
        f"loadgen: our {figure} is {ratio:.2f} of its own, {MOST_APART:.0%} apart is the limit"
        for figure, ratio in ratios.items()
        if ratio is not None and abs(ratio - 1) > MOST_APART
    ]
