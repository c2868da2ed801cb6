"""When the link connects again, and when it gives up its session."""

import pytest

from agent.link import Outcome, Retry
from agent.link.retry import SERVER_SHUTTING_DOWN, SESSION_TAKEN_OVER

UNREACHABLE = Outcome()
DIED_AT_ONCE = Outcome(up_s=0.1)


def longest(retry: Retry, outcome: Outcome, times: int) -> list[float]:
    return [retry.after(outcome) for _ in range(times)]


def test_the_wait_doubles_up_to_128_seconds_and_stays_there() -> None:
    retry = Retry(jitter=lambda: 1.0)
    assert longest(retry, UNREACHABLE, 11) == [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 128, 128]


def test_a_year_without_a_network_does_not_overflow() -> None:
    retry = Retry(jitter=lambda: 1.0)
    assert longest(retry, UNREACHABLE, 250_000)[-1] == 128


@pytest.mark.parametrize("luck", [0.0, 0.25, 0.999])
def test_the_jitter_is_full_so_that_a_fleet_does_not_come_back_at_once(luck: float) -> None:
    retry = Retry(jitter=lambda: luck)
    assert longest(retry, UNREACHABLE, 9)[-1] == pytest.approx(128 * luck)


def test_a_connection_that_lasted_makes_the_next_retry_quick_again() -> None:
    retry = Retry(jitter=lambda: 1.0)
    longest(retry, UNREACHABLE, 9)
    assert retry.after(Outcome(up_s=3600)) == 0.5


def test_a_broker_that_accepts_and_drops_does_not_make_the_retries_quick() -> None:
    retry = Retry(jitter=lambda: 1.0)
    assert longest(retry, DIED_AT_ONCE, 4) == [0.5, 1, 2, 4]


def test_a_link_that_gets_work_through_between_its_breaks_is_never_long_away() -> None:
    retry = Retry(jitter=lambda: 1.0)
    longest(retry, UNREACHABLE, 9)
    assert longest(retry, Outcome(up_s=3, acknowledged=1), 20) == [4] * 20


def test_somebody_with_our_client_id_is_not_thrown_out_in_turn() -> None:
    retry = Retry(jitter=lambda: 1.0)
    assert retry.after(Outcome(up_s=3600, code=SESSION_TAKEN_OVER)) >= 30
    assert retry.after(Outcome(up_s=3600, code=SESSION_TAKEN_OVER)) >= 30


def test_a_session_that_kills_five_connections_in_a_row_is_thrown_away_once() -> None:
    retry = Retry()
    clean_starts = []
    for outcome in [DIED_AT_ONCE] * 5 + [UNREACHABLE] * 2 + [DIED_AT_ONCE]:
        retry.after(outcome)
        clean_starts.append(retry.clean_start)
    # while nobody is reached, it has not been thrown away
    assert clean_starts == [False] * 4 + [True] * 3 + [False]


@pytest.mark.parametrize(
    "harmless",
    [
        UNREACHABLE,
        Outcome(up_s=0.1, code=SESSION_TAKEN_OVER),
        Outcome(up_s=0.1, code=SERVER_SHUTTING_DOWN),
        Outcome(up_s=0.1, acknowledged=1),
        Outcome(up_s=3600),
    ],
)
def test_what_no_clean_session_would_cure_does_not_cost_the_session(harmless: Outcome) -> None:
    retry = Retry()
    longest(retry, harmless, 20)
    assert not retry.clean_start


@pytest.mark.parametrize("progress", [Outcome(up_s=0.1, acknowledged=1), Outcome(up_s=3600)])
def test_progress_in_between_starts_the_count_again(progress: Outcome) -> None:
    retry = Retry()
    longest(retry, DIED_AT_ONCE, 4)
    retry.after(progress)
    longest(retry, DIED_AT_ONCE, 4)
    assert not retry.clean_start
