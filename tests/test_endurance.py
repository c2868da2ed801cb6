"""Five hundred starts, preemptions, cancels and faults in a row; `python -m benchmarks endurance` does ten thousand."""

import pytest

from benchmarks.endurance import FLAT_MIB, SHORT, endure

ROUNDS = 500


@pytest.mark.timeout(300)
async def test_workers_that_started_were_killed_and_went_wrong_leave_nothing_behind() -> None:
    endured = await endure(ROUNDS, SHORT)
    assert sum(map(len, endured.took_ms.values())) == ROUNDS
    assert not endured.left
    assert endured.grown_mib <= FLAT_MIB, endured.resident_mib
