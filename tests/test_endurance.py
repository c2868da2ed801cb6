"""Five hundred starts, preemptions, cancels and faults in a row; `python -m benchmarks endurance` does ten thousand."""

import json
import subprocess
import sys
from typing import Final

import pytest

from benchmarks.endurance import FLAT_MIB

ROUNDS: Final = 500
ENDURE: Final = f"""
import asyncio, json
from benchmarks.endurance import SHORT, endure
endured = asyncio.run(endure({ROUNDS}, SHORT))
print(json.dumps([sum(map(len, endured.took_ms.values())), endured.left, endured.grown_mib, endured.resident_mib]))
"""
"""In a process of its own: what other tests hold in memory, and let go of just then, is not counted."""


@pytest.mark.timeout(300)
def test_workers_that_started_were_killed_and_went_wrong_leave_nothing_behind() -> None:
    done = subprocess.run([sys.executable, "-c", ENDURE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rounds, left, grown_mib, resident_mib = json.loads(done.stdout)
    assert rounds == ROUNDS
    assert not left
    assert grown_mib <= FLAT_MIB, resident_mib
