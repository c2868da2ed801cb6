"""Kaplan-Meier against an example by hand, against counting, and with a prior in the place of sessions."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.policy.survival import Tally, blended, product_limit

INTERVALS = 8
EVEN = [1 - step / INTERVALS for step in range(INTERVALS + 1)]
FOREVER_S = float("inf")

lefts = st.lists(st.integers(0, INTERVALS - 1), max_size=30)
losts = st.lists(st.integers(0, INTERVALS), max_size=30)


def tally_of(left: list[int], lost: list[int]) -> Tally:
    tally = Tally()
    for intervals, gone in ((left, True), (lost, False)):
        for interval in intervals:
            tally.add(interval, left=gone, at_s=0.0, half_life_s=FOREVER_S)
    return tally


def counted(left: list[int], lost: list[int], prior: list[float]) -> list[float]:
    """Session by session, in exact arithmetic; the prior's hazard where nobody is at risk."""
    survival = [Fraction(1)]
    for interval in range(INTERVALS):
        gone = sum(end == interval for end in left)
        at_risk = sum(end >= interval for end in left) + sum(end > interval for end in lost)
        before, after = Fraction(prior[interval]), Fraction(prior[interval + 1])
        survival.append(survival[-1] * (1 - Fraction(gone, at_risk) if at_risk else after / before))
    return [float(share) for share in survival]


def test_by_hand() -> None:
    """Ten cars: 2 leave, 1 out of sight, 3 leave, 2 out of sight, 1 leaves, 1 stays to the end."""
    tally = tally_of(left=[0, 0, 2, 2, 2, 5], lost=[1, 4, 4, 8])
    one = 8 / 10
    two = one * 4 / 7
    three = two * 1 / 2
    assert product_limit(EVEN, 0, tally) == pytest.approx([1, one, one, two, two, two, three, three, three])


@given(lefts, losts)
def test_like_counting_session_by_session(left: list[int], lost: list[int]) -> None:
    assert product_limit(EVEN, 0, tally_of(left, lost)) == pytest.approx(counted(left, lost, EVEN))


@given(lefts, losts, st.lists(st.integers(0, INTERVALS - 1), max_size=20))
def test_a_prior_made_of_sessions_weighs_what_they_would(
    left: list[int], lost: list[int], earlier: list[int]
) -> None:
    earlier = [*earlier, INTERVALS - 1]
    prior = [sum(end >= interval for end in earlier) / len(earlier) for interval in range(INTERVALS + 1)]
    together = product_limit(EVEN, 0, tally_of([*left, *earlier], lost))
    assert product_limit(prior, len(earlier), tally_of(left, lost)) == pytest.approx(together, abs=1e-12)


@given(lefts, losts, lefts, losts)
def test_two_tallies_blended_are_the_tally_of_all_sessions(
    left: list[int], lost: list[int], others_left: list[int], others_lost: list[int]
) -> None:
    both = blended([(tally_of(left, lost), 1.0), (tally_of(others_left, others_lost), 1.0)])
    together = tally_of([*left, *others_left], [*lost, *others_lost])
    assert (both.left, both.lost) == (together.left, together.lost)
    halved = blended([(both, 0.5)])
    assert sum(halved.left.values()) == sum(both.left.values()) / 2


@given(lefts, losts, st.floats(0.5, 100), st.floats(0, 1))
def test_the_curve_starts_at_one_and_never_rises(
    left: list[int], lost: list[int], weight: float, factor: float
) -> None:
    curve = product_limit(EVEN, weight, tally_of(left, lost), factor)
    assert curve[0] == 1
    assert all(high >= low >= 0 for high, low in pairwise(curve))


@pytest.mark.parametrize("left", [True, False])
def test_a_session_counted_in_two_shares_is_one_session(left: bool) -> None:
    shared, whole = Tally(), Tally()
    for share in (0.25, 0.75):
        shared.add(3, left=left, at_s=0.0, half_life_s=FOREVER_S, weight=share)
    whole.add(3, left=left, at_s=0.0, half_life_s=FOREVER_S)
    assert shared == whole


def test_who_goes_out_of_sight_says_nothing_about_leaving_later() -> None:
    with_lost = product_limit(EVEN, 0, tally_of(left=[2, 5], lost=[3, 3, 3]))
    assert with_lost == pytest.approx([1, 1, 1, 4 / 5, 4 / 5, 4 / 5, 0, 0, 0])


def test_a_session_of_one_half_life_ago_weighs_half_of_one() -> None:
    old = Tally()
    old.add(2, left=True, at_s=0.0, half_life_s=100.0)
    old.add(2, left=True, at_s=0.0, half_life_s=100.0)
    old.add(4, left=True, at_s=100.0, half_life_s=100.0)
    assert product_limit(EVEN, 10, old) == pytest.approx(product_limit(EVEN, 10, tally_of([2, 4], [])))


def test_a_clock_that_steps_back_makes_nothing_weigh_more() -> None:
    tally = Tally()
    tally.add(2, left=True, at_s=1000.0, half_life_s=1.0)
    tally.add(2, left=True, at_s=0.0, half_life_s=1.0)
    assert tally.left == {2: 2.0}
    assert tally.faded(-1000.0, 1.0) == 1


def test_what_is_forgotten_is_not_kept() -> None:
    tally = Tally()
    tally.add(1, left=True, at_s=0.0, half_life_s=1.0)
    tally.add(2, left=False, at_s=20.0, half_life_s=1.0)
    assert (tally.left, tally.lost) == ({}, {2: 1.0})
