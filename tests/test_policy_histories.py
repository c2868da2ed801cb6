"""Random histories of a car through the real policy, against an oracle that knows only the table of guards."""

from dataclasses import replace
from typing import Final

from cars import FULLY_EQUIPPED, NS, PARKED_AND_CHARGING
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from policy_oracle import LATE_NS, Oracle
from stories import COMPUTE_W, LONG_STEPS_S, NOON_S, STEPS_S, VALUES, VARIANTS, Story, changes, orders

from agent.policy.memory import FRESH
from agent.policy.orders import Orders
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Verdict
from firmware_shims import vss
from firmware_shims.reading import Quality, Value

HOUR_NS: Final = 3600 * NS
BETWEEN_LOOKS: Final = 20


class Histories(RuleBasedStateMachine):
    """No history lets work go on or begin while the table forbids it."""

    story: Story

    @initialize(variant=st.sampled_from(VARIANTS), bare=st.booleans())
    def park(self, variant: PolicySettings, bare: bool) -> None:
        self.oracle, self.starts_ns, self.allowed = Oracle(), list[int](), False
        declared = PARKED_AND_CHARGING if bare else FULLY_EQUIPPED
        self.story = Story(variant, tuple(declared), after_look=lambda _: None)
        self.story.after_look = self._check
        self.story.look()

    def _check(self, verdict: Verdict) -> None:
        story = self.story
        facts = story.facts()
        self.oracle.look(facts, story.now_ns)
        assert bool(verdict.blockers) is not verdict.allowed
        if verdict.allowed:
            assert not self.oracle.wrong(facts)
            assert 0 <= verdict.budget_w <= COMPUTE_W
            if not self.allowed:
                assert not self.oracle.too_early(facts, story.now_ns)
                self._started()
        else:
            assert verdict.budget_w == 0
        self.allowed = verdict.allowed

    def _started(self) -> None:
        now_ns, limit = self.story.now_ns, self.story.settings.starts_per_hour
        self.starts_ns = [start_ns for start_ns in self.starts_ns if now_ns - start_ns < HOUR_NS]
        self.starts_ns.append(now_ns)
        assert len(self.starts_ns) <= limit

    @rule(several=st.lists(changes, min_size=1, max_size=3))
    def car_tells(self, several: list[tuple[str, Value, Quality]]) -> None:
        for change in several:
            self.story.change(*change)
        self.story.look()

    @rule(change=changes, seconds=st.sampled_from(STEPS_S), times=st.integers(1, 8))
    def one_signal_flutters(self, change: tuple[str, Value, Quality], seconds: float, times: int) -> None:
        path = change[0]
        for _ in range(times):
            self.story.change(*change)
            self.story.look()
            self.wait(seconds)
            self.story.change(path, VALUES[path][0], Quality.GOOD)
            self.story.look()
            self.wait(seconds)

    @rule(dips=st.lists(st.tuples(st.floats(0.01, 3.5), st.floats(0.01, 40)), min_size=1, max_size=6))
    def grid_power_dips(self, dips: list[tuple[float, float]]) -> None:
        for dark_s, lit_s in dips:
            for power_w, seconds in ((0.0, dark_s), (7200.0, lit_s)):
                self.story.change(vss.CHARGE_LINE_POWER, power_w, Quality.GOOD)
                self.story.look()
                self.wait(seconds)

    @rule(seconds=st.sampled_from((*STEPS_S, *LONG_STEPS_S)) | st.floats(0.001, 200))
    def wait(self, seconds: float) -> None:
        """Between two looks of the policy the verdict stands: it must stay right there too."""
        story = self.story
        end_ns = story.now_ns + int(seconds * NS)
        while story.now_ns < end_ns:
            begin_ns, due_ns = story.now_ns, story.due_ns(end_ns)
            for step in range(1, BETWEEN_LOOKS):
                story.pass_until(max(begin_ns, begin_ns + (due_ns - begin_ns) * step // BETWEEN_LOOKS))
                self._stands()
            story.pass_until(max(begin_ns, due_ns - LATE_NS, story.now_ns))
            self._stands()
            story.pass_until(due_ns)
            story.look()

    def _stands(self) -> None:
        facts = self.story.facts()
        self.oracle.look(facts, self.story.now_ns)
        if self.allowed:
            assert not self.oracle.wrong(facts)

    @rule(new=orders)
    def order(self, new: Orders) -> None:
        self.story.orders = new
        self.story.look()

    @rule(hours=st.sampled_from((-1000, -25, -1, -0.01, 0.01, 1, 25, 1000)), known=st.booleans())
    def set_wall_clock(self, hours: float, known: bool) -> None:
        self.story.wall_s = (self.story.wall_s or NOON_S) + hours * 3600 if known else None
        self.story.look()

    @rule()
    def restart(self) -> None:
        self.story.memory = replace(FRESH, pack_use=self.story.memory.pack_use)
        self.oracle, self.starts_ns, self.allowed = Oracle(), [], False
        self.story.look()

    @rule()
    def all_is_well_again(self) -> None:
        """What never allows work would pass every other check."""
        story = self.story
        for path, value in FULLY_EQUIPPED.items():
            story.change(path, value, Quality.GOOD)
        story.orders, story.wall_s = Orders(consent=True), NOON_S
        story.look()
        self.wait(3600 + 300)
        assert story.verdict.allowed, story.verdict.blockers

    @invariant()
    def memory_stays_small(self) -> None:
        memory = self.story.memory
        assert len(memory.starts_ns) <= self.story.settings.starts_per_hour
        assert len(memory.pack_use.taken) <= 24 * 60


def test_no_history_lets_work_go_on_or_begin_while_the_table_forbids_it() -> None:
    run_state_machine_as_test(
        Histories, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
    )
