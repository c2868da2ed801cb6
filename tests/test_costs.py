"""What a program costs is measured once, follows what runs really take, and survives a restart."""

from pathlib import Path

import pytest
from agents import TOPICS, agent, write_config
from wire_fleet import task, wire_fleet

from agent.costs import NOTE, PROGRAMS_KEPT, Costs, Run
from agent.store import Store
from backends.kernel import Cost
from fleet.broker import Broker

MEASURED = Cost({1: 0.010, 2: 0.018}, {}, bytes_resident=4096, cancel_bound_s=0.002)


def fails(error: BaseException) -> None:
    raise error


def row(seconds: float) -> Run:
    return Run(1, seconds, None)


async def test_what_a_row_takes_is_known_again_after_a_restart(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        costs = Costs(store, fails)
        assert costs.row_s("model", "cpu") is None
        costs.measured("model", "cpu", "1.0 cpu {}", MEASURED)
        assert costs.row_s("model", "cpu") is None
        costs.ran("model", "cpu", "1.0 cpu {}", row(0.010))
        costs.write()
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        costs = Costs(store, fails)
        await costs.restore()
        assert costs.row_s("model", "cpu") == 0.010
        assert costs.row_s("model", "null") is None
        assert costs.known("model", "cpu", "1.0 cpu {}") == MEASURED


async def test_what_another_version_wrote_is_measured_anew(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        await store.run(
            lambda ledger: ledger.notes.write(NOTE, b"\x91\x92\x92\xa1a\xa1b\x93\xcb?" + bytes(9))
        )
        costs = Costs(store, fails)
        await costs.restore()
        assert costs.known("a", "b", "") is None


async def test_runs_refresh_it_and_another_setup_starts_anew(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        costs = Costs(store, fails)
        costs.ran("model", "cpu", "1 thread", row(0.010))
        costs.ran("model", "cpu", "1 thread", row(0.020))
        assert costs.row_s("model", "cpu") == pytest.approx(0.012)
        costs.ran("model", "cpu", "4 threads", row(0.004))
        assert costs.row_s("model", "cpu") == pytest.approx(0.004)
        assert costs.known("model", "cpu", "1 thread") is None


async def test_seconds_and_joules_are_kept_by_batch_size(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        costs = Costs(store, fails)
        costs.measured("model", "cpu", "", MEASURED)
        costs.ran("model", "cpu", "", Run(1, 0.010, None))
        costs.ran("model", "cpu", "", Run(2, 0.028, 0.5))
        costs.ran("model", "cpu", "", Run(3, 0.030, 0.6))
        costs.ran("model", "cpu", "", Run(8, 0.080, 1.6))
        known = costs.known("model", "cpu", "")
        assert known is not None
        assert known.run_s == pytest.approx({1: 0.010, 2: 0.020, 8: 0.080})
        assert known.run_j == pytest.approx({2: 0.48, 8: 1.6})
        assert known.cancel_bound_s == MEASURED.cancel_bound_s


async def test_the_programs_that_ran_least_recently_are_forgotten(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        costs = Costs(store, fails)
        for number in range(PROGRAMS_KEPT + 1):
            costs.ran(f"model {number}", "cpu", "", row(0.010))
            costs.ran("model 0", "cpu", "", row(0.010))
        assert costs.row_s("model 0", "cpu") is not None
        assert costs.row_s("model 1", "cpu") is None


async def test_a_second_load_measures_nothing(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        (station,) = car.service.stations
        costs = car.service.executor.runs.costs
        fleet.send(task("first"))
        await fleet.until(lambda: fleet.is_final("first"), "the first task")
        entry = next(iter(costs._entries.values()))
        entry.run_s[1] = 0.123
        station.kill()
        await station.ended()
        fleet.send(task("second"))
        await fleet.until(lambda: fleet.is_final("second"), "the second task")
        (load,) = station._loads.values()
        assert load.result().program.cost.run_s[1] == 0.123
