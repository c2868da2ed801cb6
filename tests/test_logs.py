import io
import json
import logging
from collections.abc import Iterator

import pytest

from agent import logs

ATTACK = 'x\n{"level": "CRITICAL"}\r\x1b[2J\x85\u2028\u202e\ud800\x00'


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield logging.getLogger("agent.test")
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)


def fail() -> None:
    raise ValueError(ATTACK)


def test_a_json_line_holds_when_where_what_and_the_fields(log: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("json", stream=stream)
    log.warning("preempted in %d ms", 7, extra={"task": "t-1", "rows_done": 3, "joules": float("nan")})
    record = json.loads(stream.getvalue())
    assert record.pop("at").endswith("Z")
    assert record == {
        "level": "WARNING",
        "logger": "agent.test",
        "message": "preempted in 7 ms",
        "task": "t-1",
        "rows_done": 3,
        "joules": "nan",
    }


def test_a_text_line_reads_from_left_to_right(log: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("text", stream=stream)
    log.warning("preempted", extra={"task": "t-1"})
    assert stream.getvalue().split(" ", 1)[1] == "WARNING agent.test: preempted task=t-1\n"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_nothing_that_is_logged_can_start_a_line_or_move_the_cursor(
    log: logging.Logger, log_format: logs.LogFormat
) -> None:
    stream = io.StringIO()
    logs.configure(log_format, stream=stream)
    log.error("task %s", ATTACK, extra={"id": ATTACK})
    line, end = stream.getvalue()[:-1], stream.getvalue()[-1]
    assert end == "\n"
    assert line.isprintable()
    assert "[2J" in line


def test_a_traceback_stays_below_its_record(log: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("text", stream=stream)
    try:
        fail()
    except ValueError:
        log.exception("stopped")
    first, *below = stream.getvalue().splitlines()
    assert first.endswith("ERROR agent.test: stopped")
    assert below[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") and line.isprintable() for line in below)


def test_a_traceback_in_json_is_one_field(log: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("json", stream=stream)
    try:
        fail()
    except ValueError:
        log.exception("stopped")
    assert "ValueError: x\n" in json.loads(stream.getvalue())["exception"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_payload_does_not_get_into_the_log(log: logging.Logger, log_format: logs.LogFormat) -> None:
    stream = io.StringIO()
    logs.configure(log_format, stream=stream)
    log.warning("odd message %s", "A" * 100_000, extra={"body": b"secret" * 100, "text": "B" * 100_000})
    written = stream.getvalue()
    assert "secret" not in written
    assert "<600 bytes>" in written
    assert "(100000 characters)" in written
    assert len(written) < 5_000


def test_info_is_shown_and_debug_is_not(log: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure("text", stream=stream)
    log.info("shown")
    log.debug("hidden")
    assert "shown" in stream.getvalue()
    assert "hidden" not in stream.getvalue()
