"""The low-pass in front of the 12 V thresholds, against its differential equation in small steps."""

import math

import pytest
from cars import NS
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.low_pass import LowPass

volts = st.floats(8, 16)
pieces = st.lists(st.tuples(volts, st.floats(0.001, 300)), min_size=1, max_size=8)


def begun(value: float, tau_s: float = 45.0) -> LowPass:
    return LowPass(value, value, 0, tau_s)


@given(volts, pieces)
def test_it_follows_its_differential_equation(first: float, history: list[tuple[float, float]]) -> None:
    """dv/dt = (input - v) / tau, by the midpoint rule."""
    low_pass, now_ns = begun(first), 0
    by_steps = first
    for new_input, seconds in history:
        low_pass = low_pass.moved(new_input, now_ns)
        now_ns += int(seconds * NS)
        steps = 400
        share = seconds / steps / 45.0
        for _ in range(steps):
            half = by_steps + (new_input - by_steps) * share / 2
            by_steps += (new_input - half) * share
        low_pass = low_pass.moved(new_input, now_ns)
        assert low_pass.value == pytest.approx(by_steps, abs=1e-3)


@given(volts, volts, st.lists(st.floats(0, 100), max_size=10))
def test_how_often_one_looks_changes_nothing(first: float, new_input: float, looks_s: list[float]) -> None:
    at_once = often = begun(first).moved(new_input, 0)
    for seconds in looks_s:
        often = often.moved(new_input, often.at_ns + int(seconds * NS))
    assert often.value == pytest.approx(at_once.moved(new_input, often.at_ns).value, abs=1e-9)


@given(volts, volts, volts)
def test_it_says_when_it_will_cross_a_limit_and_only_if_it_will(
    first: float, new_input: float, limit: float
) -> None:
    low_pass = begun(first).moved(new_input, 0)
    crosses_s = low_pass.crosses_s(limit)
    side = low_pass.value < limit
    if crosses_s is None:
        for seconds in (1, 45, 1000):
            assert (low_pass.moved(new_input, seconds * NS).value < limit) is side or new_input == limit
        return
    assert crosses_s >= 0
    before = low_pass.moved(new_input, max(0, int((crosses_s - 0.001) * NS)))
    after = low_pass.moved(new_input, int((crosses_s + 0.001) * NS))
    assert (before.value < limit) is side or math.isclose(before.value, limit, abs_tol=1e-9)
    assert (after.value < limit) is not side or math.isclose(after.value, limit, abs_tol=1e-9)


def test_after_one_time_constant_63_percent_of_a_step_are_through() -> None:
    assert begun(13.6).moved(12.0, 0).moved(12.0, 45 * NS).value == pytest.approx(
        13.6 - 1.6 * 0.632, abs=1e-3
    )


def test_a_dip_of_a_second_hardly_moves_it() -> None:
    assert begun(13.6).moved(9.0, 0).moved(13.6, NS).value > 13.49


def test_without_a_time_constant_it_shows_what_stood_until_now() -> None:
    low_pass = begun(13.6, tau_s=0).moved(12.0, NS)
    assert low_pass.crosses_s(12.8) == 0
    assert low_pass.moved(12.0, NS + 1).value == 12.0


def test_a_clock_that_steps_back_moves_nothing() -> None:
    low_pass = begun(13.6).moved(12.0, 100 * NS)
    assert low_pass.moved(12.0, 50 * NS).value == low_pass.value
