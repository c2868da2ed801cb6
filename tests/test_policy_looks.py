"""When the policy looks changes nothing: at events and when it says itself that time may change something is enough."""

from dataclasses import dataclass, field

import pytest
from cars import FULLY_EQUIPPED, NS, PARKED_AND_CHARGING
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_oracle import LATE_NS
from stories import LONG_STEPS_S, NOON_S, ODD, STEPS_S, VALUES, VARIANTS, Story, changes, orders

from agent.policy.memory import FRESH
from agent.policy.orders import Orders
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy, Verdict
from firmware_shims.reading import Quality, Reading, Snapshot, Value

MORE_LOOKS = 100
TENTH_NS = NS // 10


@dataclass
class Twins:
    """The same car twice: one is looked at when the policy asks for it, the other one all the time as well."""

    variant: PolicySettings
    seldom: Story = field(init=False)
    often: Story = field(init=False)

    def __post_init__(self) -> None:
        self.seldom, self.often = Story(self.variant), Story(self.variant)

    def both(self) -> tuple[Story, Story]:
        return self.seldom, self.often

    def look(self) -> None:
        assert answer(self.seldom.look()) == answer(self.often.look())

    def wait(self, seconds: float) -> None:
        begin_ns = self.seldom.now_ns
        end_ns = begin_ns + int(seconds * NS)
        step_ns = max(TENTH_NS, (end_ns - begin_ns) // MORE_LOOKS)
        for now_ns in (*range(begin_ns + step_ns, end_ns, step_ns), end_ns):
            for story in self.both():
                self._pass(story, now_ns)
            self.often.look()
            if answer(self.seldom.verdict) != answer(self.often.verdict):
                self._soon_agree()

    @staticmethod
    def _pass(story: Story, then_ns: int) -> None:
        """Go on to `then_ns`, and look on the way whenever the policy asked for it."""
        while (due_ns := story.due_ns(then_ns)) < then_ns:
            story.pass_until(due_ns)
            story.look()
        story.pass_until(then_ns)
        if story.verdict.next_ns is not None and story.verdict.next_ns <= then_ns:
            story.look()

    def _soon_agree(self) -> None:
        """What a look just now has seen, the other one sees in a moment."""
        for story in self.both():
            self._pass(story, story.now_ns + LATE_NS)
        assert answer(self.seldom.verdict) == answer(self.often.verdict)


def answer(verdict: Verdict) -> tuple[object, ...]:
    """What is decided, without the figures that drift."""
    reasons = tuple((blocker.reason, blocker.cause) for blocker in verdict.blockers)
    return verdict.allowed, verdict.settling, verdict.urgent, verdict.on_pack, verdict.budget_w, reasons


events = st.one_of(
    st.tuples(st.just("tell"), changes),
    st.tuples(st.just("wait"), st.sampled_from((*STEPS_S, *STEPS_S, *LONG_STEPS_S))),
    st.tuples(st.just("supply"), st.sampled_from(VALUES["Vehicle.LowVoltageBattery.CurrentVoltage"])),
    st.tuples(st.just("charge"), st.sampled_from([64.0, 63.0, 62.0, 61.0, 65.0, 29.0])),
    st.tuples(st.just("grid"), st.sampled_from([7200.0, 0.0])),
    st.tuples(st.just("order"), orders),
    st.tuples(st.just("well"), st.none()),
)
EVENT_PATHS = {
    "supply": "Vehicle.LowVoltageBattery.CurrentVoltage",
    "charge": "Vehicle.Powertrain.TractionBattery.StateOfCharge.Current",
    "grid": "Vehicle.Powertrain.TractionBattery.Charging.LinePower",
}


def happens(story: Story, kind: str, what: object) -> None:
    if kind == "tell":
        story.change(*what)  # type: ignore[misc]
    elif kind == "order":
        assert isinstance(what, Orders)
        story.orders = what
    elif kind == "well":
        for path, value in FULLY_EQUIPPED.items():
            story.change(path, value, Quality.GOOD)
        story.orders = Orders(consent=True)
    else:
        assert isinstance(what, float)
        story.change(EVENT_PATHS[kind], what, Quality.GOOD)


@settings(max_examples=60)
@given(st.sampled_from(VARIANTS), st.lists(events, max_size=20))
def test_looking_more_often_decides_nothing_else(
    variant: PolicySettings, history: list[tuple[str, object]]
) -> None:
    twins = Twins(variant)
    twins.wait(200)
    for kind, what in history:
        if kind == "wait":
            assert isinstance(what, int | float)
            twins.wait(what)
        else:
            for story in twins.both():
                happens(story, kind, what)
            twins.look()


odd_values = st.sampled_from(
    [value for values in VALUES.values() for value in values] + list(ODD)
) | st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.floats(), st.integers(-(10**400), 10**400))
snapshots = st.dictionaries(
    st.sampled_from(sorted(FULLY_EQUIPPED)), st.tuples(odd_values, st.sampled_from(Quality)), max_size=20
)


@settings(max_examples=150)
@given(
    st.sampled_from(VARIANTS),
    st.lists(
        st.tuples(snapshots, st.integers(0, 10**14), orders, st.none() | st.floats(0, 9.2e9)),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_no_snapshot_breaks_the_policy_and_none_is_looked_at_in_two_ways(
    variant: PolicySettings,
    history: list[tuple[dict[str, tuple[Value | None, Quality]], int, Orders, float | None]],
    bare: bool,
) -> None:
    policy = Policy(variant, frozenset(PARKED_AND_CHARGING if bare else FULLY_EQUIPPED), compute_w=60)
    memory, now_ns = FRESH, 0
    for odd, passed_ns, order, unix_s in history:
        now_ns += passed_ns
        readings = {path: Reading(path, value, "car", now_ns) for path, value in FULLY_EQUIPPED.items()} | {
            path: Reading(path, value, "car", now_ns, quality) for path, (value, quality) in odd.items()
        }
        look = (Snapshot(now_ns, readings), memory, now_ns)
        verdict, memory = policy.judge(*look, orders=order, unix_s=unix_s)
        assert repr(policy.judge(*look, orders=order, unix_s=unix_s)) == repr((verdict, memory))
        assert verdict.next_ns is None or verdict.next_ns > now_ns
        assert bool(verdict.blockers) is not verdict.allowed


def test_a_settled_car_is_looked_at_seldom() -> None:
    story = Story(PolicySettings())
    looks = 0

    def count(_: Verdict) -> None:
        nonlocal looks
        looks += 1

    story.after_look = count
    story.wait(24 * 3600)
    assert story.verdict.allowed
    assert looks <= 10


@pytest.mark.parametrize("volts", [12.0, 12.79, 13.0, 13.19, 14.0])
def test_a_supply_on_its_way_is_looked_at_when_it_crosses_and_seldom_else(volts: float) -> None:
    story = Story(PolicySettings())
    story.wait(100)
    story.change("Vehicle.LowVoltageBattery.CurrentVoltage", volts, Quality.GOOD)
    looks = 0

    def count(_: Verdict) -> None:
        nonlocal looks
        looks += 1

    story.after_look = count
    story.look()
    story.wait(3600)
    assert story.verdict.allowed is (volts >= 12.8)
    assert looks <= 10
    assert story.wall_s == pytest.approx(NOON_S + 3700)
