from pathlib import Path

import pytest

from agent.costs import MODELS_KEPT, Costs
from agent.store import Store


def fails(error: BaseException) -> None:
    raise error


async def test_what_a_row_takes_is_known_again_after_a_restart(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        costs = Costs(store, fails)
        assert costs.row_s("a" * 64, "cpu") is None
        costs.ran("a" * 64, "cpu", "1.0 cpu {}", 0.010)
        costs.write()
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        costs = Costs(store, fails)
        await costs.restore()
        assert costs.row_s("a" * 64, "cpu") == 0.010
        assert costs.row_s("a" * 64, "null") is None


async def test_runs_refresh_it_and_another_setup_starts_anew(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        costs = Costs(store, fails)
        costs.ran("a" * 64, "cpu", "1 thread", 0.010)
        costs.ran("a" * 64, "cpu", "1 thread", 0.020)
        assert costs.row_s("a" * 64, "cpu") == pytest.approx(0.012)
        costs.ran("a" * 64, "cpu", "4 threads", 0.004)
        assert costs.row_s("a" * 64, "cpu") == pytest.approx(0.004)


async def test_the_models_that_ran_least_recently_are_forgotten(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        costs = Costs(store, fails)
        for number in range(MODELS_KEPT + 1):
            costs.ran(f"{number:064x}", "cpu", "", 0.010)
            costs.ran(f"{0:064x}", "cpu", "", 0.010)
        assert costs.row_s(f"{0:064x}", "cpu") is not None
        assert costs.row_s(f"{1:064x}", "cpu") is None
