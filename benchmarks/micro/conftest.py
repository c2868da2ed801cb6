"""What the micro-benchmarks share: a loop that stands still between two rounds, and what names the machine."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
Turn = Callable[[Coroutine[Any, Any, T]], T]
UNSTEADY = ("hz_actual", "hz_actual_friendly", "hz_advertised", "hz_advertised_friendly")
"""A clock rate is another one at every look: it would make every machine a stranger to itself."""


@pytest.fixture
def turn() -> Iterator[Turn[Any]]:
    """Runs a coroutine to its end on one loop: what that costs by itself is `bench_an_empty_turn_of_the_loop`."""
    with asyncio.Runner() as runner:
        yield runner.get_loop().run_until_complete


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Keep only what stays the same, so that a baseline of another machine is told, and only that."""
    for name in UNSTEADY:
        machine_info.get("cpu", {}).pop(name, None)


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_compare_machine_info(
    machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Say in a line how the baseline's machine differs: pytest-benchmark's own words are two pages."""
    known = compared_benchmark["machine_info"]
    differ = sorted(name for name in machine_info if machine_info[name] != known.get(name))
    if differ:
        print(
            f"the baseline is of another machine or Python ({', '.join(differ)}): the ratios say nothing",
            file=sys.stderr,
        )
    compared_benchmark["machine_info"] = machine_info
