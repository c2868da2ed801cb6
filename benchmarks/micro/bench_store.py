"""What it costs to have tasks on the disk: a job to the writer's thread, one transaction, the answer to the loop."""

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from agent.store import Acceptance, Ledger, NewTask, Outcome, Store
from benchmarks.micro.conftest import Turn

BODY: Final = bytes(4096)
DIGEST: Final = hashlib.sha256(BODY).digest()
ROUNDS: Final = 200
MAX_BYTES: Final = 500_000_000


@pytest.fixture
def store(turn: Turn[Any], tmp_path: Path) -> Iterator[Store]:
    """A store on the disk of the temporary folder."""
    opened = Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES)
    yield opened
    turn(opened.close())


async def nothing() -> None:
    """What a turn of the loop costs by itself."""


def bench_an_empty_turn_of_the_loop(benchmark: BenchmarkFixture, turn: Turn[None]) -> None:
    """Part of every figure below that goes through the loop."""
    benchmark(lambda: turn(nothing()))


@pytest.mark.parametrize("tasks", [1, 8, 64], ids="group of {}".format)
def bench_a_commit(benchmark: BenchmarkFixture, turn: Turn[Any], store: Store, tasks: int) -> None:
    """So many new tasks of 4 KB arrive at once and are on the disk; time of the whole group."""
    numbers = itertools.count()

    async def taken(group: list[NewTask]) -> list[Acceptance]:
        return await asyncio.gather(*[store.run(_accepting(task)) for task in group])

    def arrivals() -> tuple[tuple[list[NewTask]], dict[str, object]]:
        return ([_task(next(numbers)) for _ in range(tasks)],), {}

    accepted = benchmark.pedantic(
        lambda group: turn(taken(group)), setup=arrivals, rounds=ROUNDS, warmup_rounds=5
    )
    assert [each.outcome for each in accepted] == [Outcome.NEW] * tasks


def _accepting(task: NewTask) -> Callable[[Ledger], Acceptance]:
    return lambda ledger: ledger.accept(task)


def _task(number: int) -> NewTask:
    return NewTask(
        id=f"bench-{number}",
        attempt=1,
        digest=DIGEST,
        body=BODY,
        rows_from=0,
        rows_to=8,
        received_ns=1,
        received_at=1.0,
        priority=0,
        expires_at=1e10,
        lease_s=60,
    )
