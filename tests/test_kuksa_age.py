"""Ages of datapoints under clocks that jump, units, and the options of the KUKSA source."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_shims import vss
from firmware_shims.kuksa_age import AHEAD_NS, Ages, ClockSetError
from firmware_shims.kuksa_options import KuksaOptions
from firmware_shims.kuksa_paths import SIGNALS, locate
from firmware_shims.options import read

SECOND_NS = 1_000_000_000
YEAR_2026_NS = 1_767_225_600 * SECOND_NS


class Clocks:
    """A boot-time clock and a wall clock that stand where they are put."""

    def __init__(self) -> None:
        self.boot_ns = 1_000 * SECOND_NS
        self.wall_ns = YEAR_2026_NS
        self.ages = Ages(lambda: self.boot_ns, lambda: self.wall_ns)
        self.ages.begin()

    def pass_s(self, seconds: float) -> None:
        self.boot_ns += int(seconds * SECOND_NS)
        self.wall_ns += int(seconds * SECOND_NS)


def test_the_first_datapoint_is_from_some_time_in_the_past_and_the_next_is_news() -> None:
    clocks = Clocks()
    first = clocks.ages.of("gear", clocks.wall_ns)
    clocks.pass_s(1)
    second = clocks.ages.of("gear", clocks.wall_ns)
    assert first is not None
    assert second is not None
    assert (first.seen, second.seen) == (False, True)
    assert second.stamp_ns == clocks.boot_ns


def test_a_datapoint_that_is_repeated_does_not_get_younger() -> None:
    clocks = Clocks()
    clocks.ages.of("gear", clocks.wall_ns)
    clocks.pass_s(1)
    published_ns = clocks.wall_ns
    news = clocks.ages.of("gear", published_ns)
    clocks.pass_s(5)
    assert clocks.ages.of("gear", published_ns) == news
    clocks.ages.begin()  # after a lost connection it is known still
    assert clocks.ages.of("gear", published_ns) == news


@pytest.mark.parametrize("step_s", [-3600, -1, 1, 3600])
def test_a_clock_that_is_set_ends_the_subscription(step_s: int) -> None:
    clocks = Clocks()
    clocks.ages.of("gear", clocks.wall_ns)
    clocks.wall_ns += step_s * SECOND_NS
    with pytest.raises(ClockSetError, match="moved by"):
        clocks.ages.of("gear", clocks.wall_ns)


def test_a_broker_whose_clock_is_a_little_ahead_publishes_now() -> None:
    clocks = Clocks()
    clocks.ages.of("gear", clocks.wall_ns)
    age = clocks.ages.of("gear", clocks.wall_ns + AHEAD_NS)
    assert age is not None
    assert age.stamp_ns == clocks.boot_ns
    assert clocks.ages.of("gear", clocks.wall_ns + AHEAD_NS + 1) is None


@given(
    ahead_ns=st.integers(-(2**62), 2**62),
    passed_s=st.floats(0, 1e6),
    published_ns=st.integers(-(2**62), 2**62),
)
def test_no_clock_makes_an_age_negative(ahead_ns: int, passed_s: float, published_ns: int) -> None:
    clocks = Clocks()
    clocks.wall_ns += ahead_ns
    clocks.ages.of("gear", published_ns - 1)
    clocks.pass_s(passed_s)
    age = clocks.ages.of("gear", published_ns)
    if published_ns - clocks.wall_ns > AHEAD_NS:
        assert age is None
    else:
        assert age is not None
        assert age.stamp_ns <= clocks.boot_ns


def test_units_are_those_of_the_broker() -> None:
    kilowatts = locate(vss.CHARGE_LINE_POWER, lambda _: "kW")
    minutes = locate(vss.TIME_TO_COMPLETE, lambda _: "min")
    metres_a_second = locate(vss.SPEED, lambda _: "m/s")
    assert kilowatts is not None
    assert kilowatts.value(7.2) == pytest.approx(7200)
    assert minutes is not None
    assert minutes.value(90) == 5400
    assert minutes.value(-1) is None
    assert metres_a_second is not None
    assert metres_a_second.value(10.0) == 36
    assert metres_a_second.value(True) is None
    assert locate(vss.CHARGE_LINE_POWER, lambda _: "kWh") is None
    assert locate(vss.SPEED, lambda _: None) is None
    for signal in SIGNALS:
        assert locate(signal, lambda _: "") is not None  # a broker that names no units


def test_every_signal_that_has_a_name_here_is_looked_for_on_a_broker() -> None:
    assert set(SIGNALS) == {name for name in vars(vss).values() if str(name).startswith("Vehicle.")} | set(
        vss.DOORS
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prot": 1}, "unknown field `prot`"),
        ({"port": 0}, r"options\.port: "),
        ({"host": ""}, r"options\.host: "),
        (
            {"without": ["Vehicle.Sped"]},
            "'Vehicle.Sped' is no signal of this shim; the nearest is Vehicle.Speed",
        ),
        ({"stale_after_s": {vss.SPEED: 100}}, "Vehicle.Speed = 100 s: more than 0 and at most 60 s"),
        ({"stale_after_s": {vss.SPEED: float("nan")}}, "nan s: more than 0"),
        ({"on_change": {vss.GEAR: vss.SPEED, vss.SPEED: vss.GEAR}}, "is published on change itself"),
        ({"tls_server_name": "Server"}, "needs ca_file"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        read(options, KuksaOptions)
    assert "\n" not in str(refusal.value)
