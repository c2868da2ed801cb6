"""Random cues, clearings and ends of workers: no worker outlives its cue, and every preemption comes to its end."""

from dataclasses import dataclass

from cars import PARKED_AND_CHARGING
from guard_bench import Bench
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.policy.orders import Orders
from agent.policy.settings import PolicySettings
from agent.preemption import Preemption, Preemptions
from firmware_shims import vss
from firmware_shims.reading import Value

QUICK = PolicySettings(settle_s=0.2, grid_proof_s=0.2, resume_economic_s=0.2, starts_per_hour=60)
CUES: tuple[tuple[str, Value], ...] = (
    (vss.DRIVER_DOOR, True),
    (vss.GEAR, vss.GEAR_DRIVE),
    (vss.SOC, 10.0),
    (vss.SOC, 24.0),
    (vss.PACK_CURRENT, -20.0),
)


@dataclass(eq=False)
class Worker:
    """A process: it ends at a kill or by itself, and is reaped later."""

    bench: Bench
    alive: bool = True
    killed_ns: int | None = None

    def kill(self) -> int | None:
        if not self.alive:
            return None
        self.alive = False
        self.killed_ns = self.bench.clock()
        return self.killed_ns


class Lives(RuleBasedStateMachine):
    """Two workers at most, as two backends have; what the guard says reaches the loop a while later."""

    @initialize()
    def park(self) -> None:
        self.bench = Bench(PARKED_AND_CHARGING, QUICK)
        self.workers: list[Worker] = []
        self.done: list[Preemption] = []
        self.preemptions = Preemptions(self.done.append)
        self.told = 0
        self.killing_cues = 0
        self.bench.drive(0.4)

    @precondition(lambda self: len(self.workers) < 2)
    @rule()
    def worker_starts(self) -> None:
        worker, guard = Worker(self.bench), self.bench.guard
        admitted = guard.admit(worker.kill)
        assert admitted is (guard.verdict.allowed or guard.verdict.settling)
        if admitted:
            self.workers.append(worker)

    @precondition(lambda self: any(worker.alive for worker in self.workers))
    @rule()
    def worker_ends_by_itself(self) -> None:
        next(worker for worker in self.workers if worker.alive).alive = False

    @precondition(lambda self: any(not worker.alive for worker in self.workers))
    @rule(data=st.data())
    def worker_is_reaped(self, data: st.DataObject) -> None:
        self.bench.clock.forward(0.005)
        worker = data.draw(st.sampled_from([worker for worker in self.workers if not worker.alive]))
        self._reap(worker)

    def _reap(self, worker: Worker) -> None:
        self.workers.remove(worker)
        unasked = self.bench.guard.dismiss(worker.kill)
        assert not (unasked and worker.killed_ns)
        self.preemptions.reaped(worker.kill, self.bench.clock())

    @rule(cue=st.sampled_from(CUES))
    def something_happens(self, cue: tuple[str, Value]) -> None:
        self.bench.show(*cue)

    @rule(path=st.sampled_from(sorted({path for path, _ in CUES})))
    def it_clears(self, path: str) -> None:
        self.bench.show(path, PARKED_AND_CHARGING[path])

    @rule(paused=st.booleans(), draining=st.booleans())
    def orders_change(self, paused: bool, draining: bool) -> None:
        self.bench.guard.follow(Orders(paused=paused, draining=draining))

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.3, 3.5]))
    def time_passes(self, seconds: float) -> None:
        self.bench.drive(seconds)

    @rule()
    def computer_sleeps(self) -> None:
        self.bench.clock.forward(3600)

    @rule()
    def the_loop_hears(self) -> None:
        for _, cue in self.bench.said[self.told :]:
            if cue is not None:
                self.killing_cues += cue.killed_ns is not None
                self.preemptions.begin(cue)
        self.told = len(self.bench.said)

    @invariant()
    def no_worker_outlives_an_urgent_verdict(self) -> None:
        if self.bench.guard.verdict.urgent:
            assert not any(worker.alive for worker in self.workers)

    @invariant()
    def without_workers_nothing_is_under_way(self) -> None:
        if not self.workers:
            assert not self.preemptions.under_way

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        self.bench.show(vss.DRIVER_DOOR, True)
        self.the_loop_hears()
        for worker in list(self.workers):
            self.bench.clock.forward(0.005)
            worker.alive = False
            self._reap(worker)
        assert not self.preemptions.under_way
        assert len(self.done) == self.killing_cues
        for each in self.done:
            assert each.seen_ns <= each.shut_ns <= each.killed_ns <= each.reaped_ns


def test_no_worker_outlives_its_cue_and_every_preemption_ends() -> None:
    run_state_machine_as_test(
        Lives, settings=settings(max_examples=200, stateful_step_count=30, deadline=None)
    )
