"""The log in systemd's journal: with its fields, never in the way of the agent, and as the real journal shows it."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_files import config_file, service_paths
from journal import FakeJournal, fake_journal
from running import PARKWATT, WITHIN_S

from agent import journald
from agent.journald import JournaldLog
from agent.log_text import LogText

JOURNALD = Path("/lib/systemd/systemd-journald")


def can_run_a_journal() -> bool:
    """Whether this machine lets us have one of our own: root, in a mount namespace."""
    found = JOURNALD.exists() and all(map(shutil.which, ("unshare", "journalctl", "systemd-cat")))
    if not found or os.geteuid() != 0:
        return False
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FakeJournal]:
    with fake_journal(tmp_path / "socket") as listening:
        yield listening


@pytest.fixture
def log(journal: FakeJournal) -> Iterator[logging.Logger]:
    handler = JournaldLog(LogText("veh-1"), journal.path)
    log = logging.Logger("agent.test")  # noqa: LOG001 - one that nobody else has
    log.addHandler(handler)
    yield log
    handler.close()


def test_a_record_has_the_fields_that_journalctl_filters_by(
    log: logging.Logger, journal: FakeJournal
) -> None:
    log.warning("preempted in %d ms", 7, extra={"rows_done": 3, "backend": "cpu", "watts": 1.5})
    record = journal.read()
    assert Path(record.pop("CODE_FILE")) == Path(__file__)
    assert int(record.pop("CODE_LINE")) > 1
    assert record == {
        "MESSAGE": "preempted in 7 ms",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "parkwatt",
        "CODE_FUNC": "test_a_record_has_the_fields_that_journalctl_filters_by",
        "PARKWATT_LOGGER": "agent.test",
        "PARKWATT_THREAD": "MainThread",
        "PARKWATT_ROWS_DONE": "3",
        "PARKWATT_BACKEND": "cpu",
        "PARKWATT_WATTS": "1.5",
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.DEBUG, "7"),
        (logging.INFO, "6"),
        (logging.WARNING, "4"),
        (logging.ERROR, "3"),
        (logging.CRITICAL, "2"),
    ],
)
def test_priorities_are_those_of_syslog(
    log: logging.Logger, journal: FakeJournal, level: int, priority: str
) -> None:
    log.log(level, "said")
    assert journal.read()["PRIORITY"] == priority


def test_a_message_cannot_bring_fields_of_its_own(log: logging.Logger, journal: FakeJournal) -> None:
    log.info("task %s", "x\nPRIORITY=0\n_UID=0", extra={"id": "y\nMESSAGE=owned", "a b\nPRIORITY": 1})
    record = journal.read()
    assert record["MESSAGE"] == r"task x\nPRIORITY=0\n_UID=0"
    assert record["PRIORITY"] == "6"
    assert record["PARKWATT_ID"] == r"y\nMESSAGE=owned"
    assert record["PARKWATT_A_B_PRIORITY"] == "1"


def fail() -> None:
    raise ValueError("one\ntwo\x1b[2J")


def test_a_traceback_stands_below_its_message(log: logging.Logger, journal: FakeJournal) -> None:
    try:
        fail()
    except ValueError:
        log.exception("stopped")
    first, *below = journal.read()["MESSAGE"].split("\n")
    assert first == "stopped"
    assert below[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") and line.isprintable() for line in below)


def test_a_journal_that_does_not_read_is_not_waited_for(log: logging.Logger, journal: FakeJournal) -> None:
    for number in range(2_000):
        log.info("record %d", number)
    lost = 2_000 - journal.drain()
    assert lost > 0
    log.info("again")
    assert journal.read()["MESSAGE"] == f"again ({lost} records before it were lost)"
    log.info("and again")
    assert journal.read()["MESSAGE"] == "and again"


def test_a_journal_that_is_started_again_is_written_to_again(
    log: logging.Logger, journal: FakeJournal
) -> None:
    journal.path.rename(journal.path.with_name("gone"))
    log.info("into the void")
    journal.path.with_name("gone").rename(journal.path)
    log.info("back")
    assert journal.read()["MESSAGE"] == "back (1 records before it were lost)"


def test_the_journal_is_taken_only_where_stderr_goes_to_it() -> None:
    """As systemd.exec(5) says it: the variable is inherited, so it counts for that very stderr alone."""
    program = "import os; from agent import journald; print(journald.is_stderr(os.environ))"
    reading, writing = os.pipe()
    found = os.fstat(writing)
    for stream, expected in ((f"{found.st_dev}:{found.st_ino}", "True"), ("8:1", "False"), ("", "False")):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"JOURNAL_STREAM": stream},
            stdout=subprocess.PIPE,
            stderr=writing,
            text=True,
            check=True,
            timeout=WITHIN_S,
        )
        assert ended.stdout.strip() == expected
    os.close(reading)
    os.close(writing)


def test_nobody_at_the_socket_is_no_journal(tmp_path: Path) -> None:
    assert not journald.reachable(tmp_path / "socket")
    with fake_journal(tmp_path / "socket") as listening:
        assert journald.reachable(listening.path)
    (tmp_path / "socket").touch()
    assert not journald.reachable(tmp_path / "socket")


# As LogNamespace= in a unit does it: a journal of its own, which touches neither the kernel's log nor the machine's.
UNDER_A_JOURNAL = """
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log || exit 90
mkdir -p /run/systemd/journal /run/systemd/journal.cars
{journald} cars 2>/dev/null &
journald=$!
for turn in $(seq 100); do [ -S /run/systemd/journal.cars/stdout ] && break; sleep 0.1; done
mount --bind /run/systemd/journal.cars /run/systemd/journal
systemd-cat sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"' sh "$@" &
agent=$!
for turn in $(seq 200); do
  journalctl --namespace=cars -q -t parkwatt -o cat | grep -q 'no work' && break
  sleep 0.1
done
kill -TERM $agent; wait $agent; ended=$?
journalctl --namespace=cars -q -t parkwatt -o json
kill $journald; wait $journald
exit $ended
"""


@pytest.mark.skipif(
    not can_run_a_journal(),
    reason="needs root, a mount namespace and systemd-journald for a journal of its own",
)
def test_the_real_journal_has_the_agents_records_with_their_fields(tmp_path: Path) -> None:
    config = config_file(tmp_path, service_paths(tmp_path))
    script = UNDER_A_JOURNAL.format(journald=JOURNALD)
    ended = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "bash", *PARKWATT, "run", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * WITHIN_S,
    )
    records = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 0, ended.stderr
    (no_work,) = [record for record in records if record["MESSAGE"].startswith("no work: ")]
    assert (no_work["PRIORITY"], no_work["_TRANSPORT"]) == ("6", "journal")
    assert no_work["PARKWATT_LOGGER"] == "agent.service"
    assert no_work["CODE_FILE"].endswith("/agent/service.py")
