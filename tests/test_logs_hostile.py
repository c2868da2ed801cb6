"""Whatever stands in a record, a log line is one line, printable, short, and tells of this car alone."""

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal import FakeJournal, fake_journal

from agent.journald import JournaldLog
from agent.log_text import TRACEBACK_MAX_CHARS, VALUE_MAX_CHARS, LogText
from agent.logs import JsonFormatter, TextFormatter

VIN: Final = "5YJ3E1EA7KF317000"
HOSTILE: Final = (
    'x\n{"level": "CRITICAL", "message": "owned"}',
    "x\r\nPRIORITY=0\n_UID=0",
    "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e",
    "\u202e\u2066\u200b\ufeff",
    "\ud800\udfff\udc80",
    "\x00\x7f",
    "%s %(x)s %n {0}",
    "A" * 1_000_000,
    "\n" * 10_000,
    VIN,
    f"of {VIN}, and\n{VIN}",
)
ENDLESS: Final = 10**20_000
LINE_MAX_CHARS: Final = 40_000
"""Of a few fields of the greatest length, each character in ten."""


class Unprintable:
    """Has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")


VALUES: Final = (
    *HOSTILE,
    b"secret" * 1000,
    memoryview(b"secret" * 10),
    bytearray(b"secret" * 10),
    float("nan"),
    float("-inf"),
    ENDLESS,
    Unprintable(),
)


def record(
    name: str = "agent.test", message: object = "said", arguments: Any = (), **more: object
) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, None)
    vars(made).update(more)
    return made


def with_traceback(error: BaseException) -> logging.LogRecord:
    made = record()
    try:
        raise error
    except type(error):
        made.exc_info = sys.exc_info()
    return made


def everywhere(value: Any) -> Iterator[logging.LogRecord]:
    """A record for each place where a value can stand."""
    yield record(message=value)
    yield record(message="task %s", arguments=(value,))
    yield record(message="task %d of %s", arguments=(value, value))
    yield record(message="no place for it", arguments=(value,))
    yield record(message="task %(id)s", arguments=({"id": value},))
    yield record(task=value)
    yield record(task=[value, {"a": value}])
    text = value if isinstance(value, str) else repr(type(value))
    yield record(name=text)
    yield record(levelname=text, funcName=text, threadName=text, pathname=text)
    named: dict[str, Any] = {text: 1}
    yield record(**named)
    yield with_traceback(ValueError(value))
    yield with_traceback(type("Evil\nError", (Exception,), {})(value))


Write = Callable[[logging.LogRecord], str]


def write_json(made: logging.LogRecord) -> str:
    line = JsonFormatter(LogText("veh-1")).format(made)
    assert line.isascii()
    assert line.isprintable()
    strict = json.loads(line)
    json.dumps(strict, ensure_ascii=False).encode()  # without lone surrogates
    return line


def write_text(made: logging.LogRecord) -> str:
    text = TextFormatter(LogText("veh-1")).format(made)
    first, *below = text.split("\n")
    assert first.isprintable()
    assert all(line.startswith("    ") and line.isprintable() for line in below)
    assert made.exc_info or not below
    text.encode()
    return text


@pytest.fixture
def write_journal(tmp_path: Path) -> Iterator[Write]:
    with fake_journal(tmp_path / "socket") as journal:
        handler = JournaldLog(LogText("veh-1"), journal.path)

        def write(made: logging.LogRecord) -> str:
            handler.handle(made)
            return "".join(f"{name}={value}\n" for name, value in checked(made, journal).items())

        yield write
        handler.close()


def checked(made: logging.LogRecord, journal: FakeJournal) -> dict[str, str]:
    fields = journal.read()
    first, *below = fields["MESSAGE"].split("\n")
    assert first.isprintable()
    assert all(line.startswith("    ") and line.isprintable() for line in below)
    assert made.exc_info or not below
    for name, value in fields.items():
        assert name.replace("_", "").isalnum()
        assert name.isascii()
        assert name.isupper()
        assert not name.startswith("_")
        assert len(name) <= 64
        assert name == "MESSAGE" or value.isprintable()
    assert fields["PRIORITY"] in set("2345")
    assert fields["SYSLOG_IDENTIFIER"] == "parkwatt"
    return fields


@pytest.fixture(params=["json", "text", "journal"])
def write(request: pytest.FixtureRequest, write_journal: Write) -> Write:
    return {"json": write_json, "text": write_text, "journal": write_journal}[request.param]


def named(value: object) -> str:
    """The same in every run: what a test is selected by."""
    if value is ENDLESS:
        return "endless"
    return repr(value)[:30] if not isinstance(value, memoryview) else "a memoryview"


@pytest.mark.parametrize("value", VALUES, ids=named)
def test_a_hostile_value_does_no_harm_wherever_it_stands(write: Write, value: object) -> None:
    for made in everywhere(value):
        line = write(made)
        assert "secret" not in line
        assert VIN not in line
        assert len(line) < LINE_MAX_CHARS + 10 * TRACEBACK_MAX_CHARS


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(),
    st.lists(st.one_of(st.text(), st.integers(), st.floats(), st.binary()), max_size=3),
    st.dictionaries(
        st.text(min_size=1), st.one_of(st.text(), st.integers(), st.none(), st.binary()), max_size=3
    ),
    st.one_of(st.none(), st.text()),
)
def test_no_record_at_all_does_harm(
    write: Write, message: str, arguments: list[Any], extra: dict[str, Any], error: str | None
) -> None:
    taken = set(vars(record()))
    free = {name: value for name, value in extra.items() if name not in taken}
    made = record(message=message, arguments=tuple(arguments), **free)
    if error is not None:
        made.exc_info = with_traceback(ValueError(error)).exc_info
    write(made)


def test_a_cut_value_says_how_long_it_was(write: Write) -> None:
    line = write(record(message="body %s", arguments=("A" * 100_000,)))
    assert "A" * (VALUE_MAX_CHARS - 100) in line
    assert "(100005 characters)" in line


def test_of_a_long_traceback_both_ends_are_there(write: Write) -> None:
    line = write(with_traceback(ValueError("A" * 1_000_000 + "the end")))
    assert "Traceback (most recent call last)" in line
    assert "the end" in line
    assert len(line) < 3 * TRACEBACK_MAX_CHARS


def test_numbers_of_other_cars_are_left_out_and_how_this_one_is_called_is_not() -> None:
    other = "WDB1110571A123456"
    assert LogText("veh-1").value(f"for {VIN}, not {other}") == "for <VIN>, not <VIN>"
    assert (
        LogText(f"car-{VIN}").value(f"fleet/v1/br/car-{VIN}/task: {other}")
        == f"fleet/v1/br/car-{VIN}/task: <VIN>"
    )


@pytest.mark.parametrize(
    "text",
    [
        "01JD9Y6MZX8Q4T2B7C5E3F1G0H",  # a task's id
        "6cd303f12a3c3a0611529a1d62b33127871" + "5f27f2788e8437127b030f98faf2a",  # a hash
        "1795310400123456789",
        "12345678901234567",  # nanoseconds
        "agent.link",
        "vehicle_of_17_ch",
    ],
)
def test_what_only_looks_a_little_like_one_stays(text: str) -> None:
    assert LogText().value(f"at {text}: x") == f"at {text}: x"


def test_a_record_that_cannot_be_written_does_not_print_its_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(LogText()))
    handler.handle(record(message="%d rows", arguments=("secret\x1b[2J",)))
    assert json.loads(stream.getvalue())["message"] == "%d rows (its arguments do not fit)"
    assert capsys.readouterr().err == ""
