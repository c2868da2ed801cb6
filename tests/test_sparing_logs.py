"""A flood of bad messages must not become a flood of log lines."""

import io
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from agent import logs
from agent.sparing_logs import ALIKE_MOST, KIND_MAX_CHARS, KINDS_MOST, WINDOW_S, Sparing


def record(message: str, *arguments: object, at_s: float = 0.0) -> logging.LogRecord:
    made = logging.LogRecord("agent.intake", logging.WARNING, "", 0, message, arguments, None)
    made.created = at_s
    return made


def test_of_records_that_are_alike_only_the_first_are_written() -> None:
    sparing = Sparing()
    written = [sparing.filter(record("refused %s", number)) for number in range(20_000)]
    assert written.count(True) == ALIKE_MOST
    assert all(written[:ALIKE_MOST])


def test_other_records_are_written_beside_the_flood() -> None:
    sparing = Sparing()
    for number in range(1_000):
        sparing.filter(record("refused %s", number))
    assert sparing.filter(record("the store is full"))


def test_the_next_window_says_how_many_were_left_out() -> None:
    sparing = Sparing()
    for number in range(1_000):
        sparing.filter(record("refused %s", number))
    later = record("refused %s", "this", at_s=WINDOW_S)
    assert sparing.filter(later)
    assert later.getMessage() == f"refused this (and {1_000 - ALIKE_MOST} like it before, left out)"


def test_a_clock_that_is_set_back_opens_a_new_window() -> None:
    sparing = Sparing()
    for number in range(1_000):
        sparing.filter(record("refused %s", number, at_s=1e9))
    assert sparing.filter(record("refused %s", "this", at_s=0.0))


def test_many_kinds_cost_memory_that_ends() -> None:
    sparing = Sparing()
    for number in range(10 * KINDS_MOST):
        sparing.filter(record(f"kind {number}"))
    assert len(sparing._windows) == KINDS_MOST


def test_an_enormous_message_is_not_remembered_whole() -> None:
    sparing = Sparing()
    for number in range(100):
        sparing.filter(record("x" * 100_000 + str(number)))
    assert sum(len(message) for _, message in sparing._windows) <= KIND_MAX_CHARS


@pytest.mark.usefixtures("eager_threads")
def test_threads_that_log_at_once_do_not_trip_over_each_other() -> None:
    sparing = Sparing()
    faults: list[BaseException] = []

    def flood(thread: int) -> None:
        try:
            for number in range(40 * KINDS_MOST):
                sparing.filter(record(f"kind {thread} {number}"))
        except (KeyError, RuntimeError) as error:
            faults.append(error)

    threads = [threading.Thread(target=flood, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """The interpreter changes threads as often as it can."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual_s)


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("root_logger")
def test_the_agents_own_log_is_sparing() -> None:
    stream = io.StringIO()
    logs.configure("text", stream=stream)
    for number in range(1_000):
        logging.getLogger("agent.intake").warning("refused %s", number)
    assert len(stream.getvalue().splitlines()) == ALIKE_MOST
