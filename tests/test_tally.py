"""The plain numbers behind the metrics."""

import pytest
from wire_fleet import task

from agent.histogram import Histogram
from agent.job import Chunk, Job, Origin, Spending
from agent.protocol.messages import EnergySource
from agent.tally import Tally


def test_a_duration_counts_up_to_its_bound_and_a_longer_one_above_all() -> None:
    lag = Histogram((0.001, 0.01))
    for duration_s in (0.0, 0.001, 0.0011, 0.01, 5.0):
        lag.observe(duration_s)
    assert list(lag.cumulative()) == [(0.001, 2), (0.01, 4), (float("inf"), 5)]
    assert lag.sum_s == pytest.approx(5.0121)


def job(backend: str) -> Job:
    message, tail = task("night-1")
    origin = Origin(backend, "dev", ())
    return Job(message, [memoryview(tail)], (0, 8), 8, [(0, 8)], 0, 0, origin=origin)


def test_joules_of_different_sources_and_backends_are_never_one_sum() -> None:
    tally = Tally()
    for backend, source, energy_j, idle_j in (
        ("cpu", EnergySource.INTEGRATED, 2.0, 1.0),
        ("cpu", EnergySource.INTEGRATED, 3.0, None),
        ("cpu", EnergySource.MODEL, 5.0, None),
        ("fsd", EnergySource.MODEL, 7.0, None),
        ("fsd", EnergySource.NONE, None, None),
    ):
        tally.computed(job(backend), Chunk(0, 4, (), Spending(1.0, 0.5, energy_j, source, idle_j)))
    assert tally.active_j == {
        ("cpu", EnergySource.INTEGRATED): 5.0,
        ("cpu", EnergySource.MODEL): 5.0,
        ("fsd", EnergySource.MODEL): 7.0,
    }
    assert tally.idle_j == {("cpu", EnergySource.INTEGRATED): 1.0}
    assert tally.rows == {"cpu": 12, "fsd": 8}
    assert tally.device_s == {"cpu": 1.5, "fsd": 1.0}
