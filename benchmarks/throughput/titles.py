"""How rows are called in tables, pictures and reports."""

from typing import Final

from benchmarks.throughput.results import Row

TRACEBACK: Final = "Traceback (most recent call last):\n"


def backend(row: Row) -> str:
    """`cpu`, or `fsd on emulator` where the device has a name of its own."""
    used = row.backend
    return used.use if used.device in {"", used.use} else f"{used.use} on {used.device}"


def scenario(row: Row) -> str:
    """`offline, batch 8`."""
    used = row.scenario
    batch = f", batch {used.batch}" if used.batch > 1 else ""
    rate = f", {used.rate_per_s:.3g}/s" if used.rate_per_s else ""
    return f"{used.name}{batch}{rate}"


def failure(row: Row) -> str:
    """Why it has no figures, in one line: of a traceback the last one. All of it stands in results.json."""
    first, traceback, rest = row.failed.partition(TRACEBACK)
    return f"{first}{rest.strip().splitlines()[-1]}" if traceback else row.failed


def title(row: Row) -> str:
    """All of it."""
    return f"{row.model.id}, {backend(row)}, {scenario(row)}"
