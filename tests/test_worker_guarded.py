"""No worker without a guard: the agent's own threads are part of what has to be alive."""

import os
from pathlib import Path

from agents import TOPICS, RunningAgent, agent, write_config
from guard_bench import Bench
from wire_fleet import task, wire_fleet
from workers import readable_within

from agent.guard import UNWATCHED_NS
from fleet.broker import Broker


def test_a_guard_that_nobody_lets_look_does_not_watch() -> None:
    bench = Bench()
    seen: list[bool] = []
    bench.drive(1.0)
    seen.append(bench.guard.watches)
    bench.clock.forward(UNWATCHED_NS / 1e9 + 0.001)
    seen.append(bench.guard.watches)
    bench.tick()
    seen.append(bench.guard.watches)
    assert seen == [True, False, True]


async def stand_still(car: RunningAgent) -> None:
    """Keep the agent's loop from turning until it has lost its worker."""
    (station,) = car.service.stations
    victim = station.pid
    assert victim is not None
    pidfd = os.pidfd_open(victim)
    assert readable_within(pidfd, 20)
    os.close(pidfd)
    await car.until(lambda: station.pid != victim, "the worker is gone")


async def test_an_agent_that_stood_still_blames_no_task_for_the_worker_it_lost(
    tmp_path: Path, iotcore: Broker
) -> None:
    """Twice, because a task whose rows were in two workers that died by themselves is refused."""
    config = write_config(tmp_path, iotcore.port, run_us=60_000)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        (station,) = car.service.stations
        fleet.send(task("night-1", count=10))
        for halt in range(2):
            await car.until_rows(2 + 3 * halt)
            await stand_still(car)
            assert station.pause_s == 0
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
