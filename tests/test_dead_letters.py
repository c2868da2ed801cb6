"""Messages that nobody can take: acknowledged, counted, shown, and cheaper than what they are."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from agents import TOPICS, agent, write_config
from running import parkwatt
from wire_fleet import task, wire_fleet

from agent import dead_letters
from agent.control import ask
from agent.dead_letters import DeadLetters, printable
from agent.protocol.reasons import Reason, Refused
from agent.store import Ledger, Store
from agent.store.dead_letters import KEPT
from fleet.broker import Broker

MALFORMED = Refused(Reason.MALFORMED, "no JSON")
SIGNATURE = Refused(Reason.BAD_SIGNATURE, "not signed")


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as opened:
        yield opened


def fails(error: BaseException) -> None:
    raise error


def commits(ledger: Ledger, statements: list[str]) -> None:
    """Note from now on what reaches the disk."""
    ledger.connection.set_trace_callback(
        lambda statement: statements.append(statement) if statement.startswith("INSERT INTO dead") else None
    )


async def test_a_flood_is_counted_in_full_and_costs_the_disk_one_write(store: Store) -> None:
    letters = DeadLetters(store, fails)
    written: list[str] = []
    await store.run(lambda ledger: commits(ledger, written))
    for number in range(20_000):
        letters.bury("task", b"%d" % number, MALFORMED)
    assert letters.counts == {100: 20_000}
    assert [letter.head for letter in letters.newest] == [str(number) for number in range(19_900, 20_000)]
    await store.run(lambda _: None)
    assert not written
    letters.write()
    kept, counts = await store.run(
        lambda ledger: (ledger.dead_letters.newest(), ledger.dead_letters.counts())
    )
    assert kept == list(letters.newest)
    assert counts == {100: 20_000}
    assert len(written) == KEPT + 1


async def test_they_are_on_disk_some_seconds_later_without_being_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "WRITE_EVERY_S", 0.01)
    letters = DeadLetters(store, fails)
    letters.bury("control", b"\x00", SIGNATURE)
    async with asyncio.timeout(20):
        while not await store.run(lambda ledger: ledger.dead_letters.counts()):
            await asyncio.sleep(0.005)


async def test_counts_and_the_newest_survive_a_restart(tmp_path: Path) -> None:
    for start in range(1, 4):
        async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
            letters = DeadLetters(store, fails)
            await letters.restore()
            for number in range(70):
                letters.bury("task", f"{start} {number}".encode(), MALFORMED)
            letters.bury("control", b"", SIGNATURE)
            letters.write()
            assert letters.counts == {100: 70 * start, 120: start}
            assert len(letters.newest) == min(71 * start, KEPT)
    async with Store.open(tmp_path / "agent.db", max_bytes=10_000_000) as store:
        again = DeadLetters(store, fails)
        await again.restore()
        assert again.newest == letters.newest
        assert again.counts == letters.counts


async def test_what_was_written_is_not_written_again(store: Store) -> None:
    letters = DeadLetters(store, fails)
    letters.bury("task", b"x", MALFORMED)
    letters.write()
    letters.write()
    assert await store.run(lambda ledger: ledger.dead_letters.counts()) == {100: 1}


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"id": "x"}', '{"id": "x"}'),
        (b"\x1b[2J\r\n\x00\xff", r"\x1b[2J\x0d\x0a\x00\xff"),
        (rb"\x41", r"\x5cx41"),
        ("\u202e".encode(), r"\xe2\x80\xae"),
    ],
)
def test_a_message_is_shown_without_doing_anything_to_the_terminal(raw: bytes, shown: str) -> None:
    assert printable(raw) == shown


async def test_status_shows_why_messages_were_not_taken(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        for number in range(7):
            fleet.publish(TOPICS.task, b"\x1b[2J%d" % number)
        fleet.publish(TOPICS.control, b"{")
        fleet.send(task("good"))
        await fleet.until(lambda: fleet.is_final("good"), "the good task's answer")
        text = await asyncio.to_thread(parkwatt, "status", "--config", str(config))
        answer = await asyncio.to_thread(ask, tmp_path / "agent.sock", {"cmd": "status"})
    lines = text.stdout.splitlines()
    shown = lines[lines.index("refused   7 bad_signature, 1 malformed") + 1 :]
    assert len(shown) == 5
    (control,) = (line for line in shown if " control: 100 malformed: " in line)
    assert control.endswith("(1 bytes: {)")
    assert any(" task: 120 bad_signature: " in line and r"(5 bytes: \x1b[2J6)" in line for line in shown)
    dead = answer["status"]["dead_letters"]
    assert dead["counts"] == {"bad_signature": 7, "malformed": 1}
    assert sorted(letter["size_bytes"] for letter in dead["newest"]) == [1] + [5] * 7
    assert all(len(letter["sha256"]) == 64 for letter in dead["newest"])


async def test_a_task_that_is_refused_by_a_rule_is_answered_and_no_dead_letter(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with agent(write_config(tmp_path, iotcore.port)) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("elsewhere", residency=["AR"]))
        fleet.send(task("night-1"))
        fleet.send(task("night-1", 9))
        fleet.send(task("good"))
        await fleet.until(lambda: fleet.is_final("good"), "the good task's answer")
        assert car.service.dead_letters.counts == {Reason.REPLAYED: 1}
        assert car.service.intake.refused == {"residency": 1, "replayed": 1}
