"""Agent, broker and fleet are killed and their links cut at random, and every row is answered exactly once.

What happens when follows from a seed: `CHAOS_SEED=7 pytest tests/test_chaos.py` repeats the schedule of 7.
"""

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import chaos_fleet
import pytest
from agent_process import PARKWATT_RUN, until_nothing_owed
from agents import write_config
from chaos_fleet import ROW, ROWS, Answers
from fault_proxy import FaultProxy, Way
from wire_fleet import WITHIN_S

from fleet.broker import Broker

SEED = int(os.environ.get("CHAOS_SEED", "20261122"))
TASKS = 1_000
FAULTS = {"agent": 16, "broker": 12, "fleet": 12, "cut the car off": 10, "cut the fleet off": 10}
"""The first three are kills."""
LAST_FAULT_ROW = TASKS * ROWS * 19 // 20
CUT_BYTES = 2_000
"""A link is cut somewhere within so many more bytes: most often in the middle of a packet."""
ALL_WITHIN_S = 100.0
RUN_MARK = "CHAOS_RUN"
"""Environment that every process of one run has."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong when so many rows have been answered."""

    at_rows: int
    what: str
    way: Way
    cut_bytes: int


def schedule(seed: int) -> list[Fault]:
    chance = random.Random(seed)  # noqa: S311 - a seed, so that a run can be repeated
    faults = [
        Fault(
            chance.randrange(LAST_FAULT_ROW), what, chance.choice(list(Way)), chance.randrange(1, CUT_BYTES)
        )
        for what, times in FAULTS.items()
        for _ in range(times)
    ]
    return sorted(faults, key=lambda fault: fault.at_rows)


async def until(holds: Callable[[], object], what: str, within_s: float = WITHIN_S) -> None:
    try:
        async with asyncio.timeout(within_s):
            while not holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}") from None


@dataclass
class Kept:
    """A program that is started again whenever it ends, as a supervisor such as systemd does."""

    command: tuple[str, ...]
    environment: dict[str, str]
    ends: list[int] = field(default_factory=list)
    """How every process of it ended, as `subprocess` says it."""
    _process: asyncio.subprocess.Process | None = None
    _wanted: bool = True

    async def run(self) -> None:
        while self._wanted:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, *self.command, env=self.environment
            )
            try:
                self.ends.append(await self._process.wait())
            finally:
                if self._process.returncode is None:
                    self._process.kill()
                    await self._process.wait()

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def stop(self, how: signal.Signals) -> None:
        self._wanted = False
        await self._end(how)

    async def _end(self, how: signal.Signals) -> None:
        await until(lambda: self._process and self._process.returncode is None, "it runs")
        assert self._process is not None
        self._process.send_signal(how)
        await self._process.wait()


@dataclass
class Stage:
    """Everything that can be killed, and what has been answered."""

    broker: Broker
    agent: Kept
    fleet: Kept
    car_link: FaultProxy
    fleet_link: FaultProxy
    answers: Answers

    async def strike(self, fault: Fault) -> None:
        match fault.what:
            case "agent":
                await self.agent.kill()
            case "fleet":
                await self.fleet.kill()
            case "broker":
                self.broker.kill()
                self.broker.start()
            case "cut the car off":
                self.car_link.cut_after(fault.cut_bytes, fault.way)
            case _:
                self.fleet_link.cut_after(fault.cut_bytes, fault.way)

    async def until_rows(self, rows: int) -> None:
        def answered() -> bool:
            self.answers.read()
            assert {*self.agent.ends, *self.fleet.ends} <= {-signal.SIGKILL}, "neither ends by itself"
            return self.answers.rows >= rows

        await until(answered, f"{rows} rows", ALL_WITHIN_S)


@asynccontextmanager
async def staged(folder: Path, broker: Broker) -> AsyncIterator[Stage]:
    answers = Answers(folder / "answers")
    answers.path.touch()
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), RUN_MARK: str(folder)}
    async with FaultProxy(broker.port) as car_link, FaultProxy(broker.port) as fleet_link:
        config = write_config(folder, car_link.port, settle_s=0.05)
        agent = Kept((*PARKWATT_RUN, str(config)), environment)
        fleet = Kept((chaos_fleet.__file__, str(fleet_link.port), str(answers.path), str(TASKS)), environment)
        running = [asyncio.create_task(kept.run()) for kept in (agent, fleet)]
        try:
            yield Stage(broker, agent, fleet, car_link, fleet_link, answers)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


def assert_every_row_is_answered_once(answers: Answers) -> None:
    answered = sorted((piece.task, row) for piece in answers.pieces for row in range(piece.begin, piece.end))
    assert answered == [(task, row) for task in range(TASKS) for row in range(ROWS)]
    for piece in answers.pieces:
        assert piece.data == b"".join(ROW.pack(piece.task, row) for row in range(piece.begin, piece.end))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def alive(run: Path) -> list[str]:
    """Processes of the run that have not ended."""
    mark = f"{RUN_MARK}={run}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(f"{process.name}: {(process / 'cmdline').read_bytes()!r}")
        except OSError:  # it has just ended
            continue
    return found


def assert_nothing_is_left(folder: Path) -> None:
    """No process, so no shared memory either: all of it is in memfds, which go with those who hold them."""
    assert not alive(folder)
    names = {path.name for path in folder.iterdir() if not path.name.startswith("agent.db.")}
    assert names == {"agent.toml", "agent.db", "answers", "models", "cache", "keys", "tmp"}
    assert len(list((folder / "cache").iterdir())) == 1, "the one model"
    left_behind = list((folder / "tmp").iterdir())
    assert len(left_behind) <= 1, "what a killed agent left is removed when the next one starts a worker"
    database = sqlite3.connect(folder / "agent.db")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


@pytest.mark.parametrize("seed", [SEED])
async def test_eight_thousand_rows_are_answered_once_whatever_is_killed(
    tmp_path: Path, broker: Broker, seed: int
) -> None:
    before = descriptors()
    async with staged(tmp_path, broker) as stage:
        async with asyncio.timeout(ALL_WITHIN_S):
            for fault in schedule(seed):
                await stage.until_rows(fault.at_rows)
                await stage.strike(fault)
            await stage.until_rows(TASKS * ROWS)
        stage.car_link.cut()  # results are repeated after a reconnect: the fleet that was to settle some has died
        await until_nothing_owed(tmp_path / "agent.toml")
        await stage.agent.stop(signal.SIGTERM)
        await stage.fleet.stop(signal.SIGKILL)
    assert_every_row_is_answered_once(stage.answers)
    assert stage.agent.ends == [-signal.SIGKILL] * FAULTS["agent"] + [0], "it never gave up by itself"
    assert stage.fleet.ends == [-signal.SIGKILL] * (FAULTS["fleet"] + 1)
    assert_nothing_is_left(tmp_path)
    assert descriptors() == before
