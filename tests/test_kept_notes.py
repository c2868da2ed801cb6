"""What parts of the agent keep for themselves must cost neither the agent nor more than one write at a time."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from agent.kept_notes import KeptNotes
from agent.store import Store, StoreFailed


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "agent.db", max_bytes=1_000_000) as opened:
        yield opened


def fails(error: BaseException) -> None:
    raise error


async def note(store: Store, name: str) -> bytes | None:
    return await store.run(lambda ledger: ledger.notes.read(name))


async def test_in_a_full_store_the_newest_wins_and_one_write_waits(store: Store) -> None:
    notes = KeptNotes(store, fails)
    await store.run(lambda ledger: ledger.notes.write("filler", bytes(900_000)))
    notes.write({"costs": b"0" * 200_000})
    async with asyncio.timeout(20):
        while not store.writer.waiting:
            await asyncio.sleep(0.001)
    for number in range(1, 1_000):
        notes.write({"costs": b"%d" % number})
    await store.run(lambda _: None)
    assert store.writer.waiting == 1
    assert await note(store, "costs") is None
    await store.run(lambda ledger: ledger.notes.write("filler", b""))
    async with asyncio.timeout(20):
        while await note(store, "costs") != b"999":
            await asyncio.sleep(0.001)


async def test_notes_that_are_given_together_are_on_disk_together(store: Store) -> None:
    KeptNotes(store, fails).write({"stay": b"null", "stay_history": b"{}"})
    assert (await note(store, "stay"), await note(store, "stay_history")) == (b"null", b"{}")


async def test_what_cannot_be_read_is_forgotten_and_said(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    notes = KeptNotes(store, fails)
    notes.write({"killers": b"\xff"})
    with caplog.at_level(logging.WARNING):
        assert await notes.read("killers", msgspec.json.Decoder(dict[str, int]).decode) is None
    assert "'killers' cannot be used and is forgotten" in caplog.text
    assert await notes.read("nothing", msgspec.json.Decoder(dict[str, int]).decode) is None


async def test_a_broken_disk_is_told(store: Store) -> None:
    told: list[BaseException] = []
    await store.run(lambda ledger: ledger.connection.execute("PRAGMA query_only = ON"))
    KeptNotes(store, told.append).write({"costs": b"1"})
    async with asyncio.timeout(20):
        while not told:
            await asyncio.sleep(0.001)
    (error,) = told
    assert isinstance(error, StoreFailed)
    assert "readonly" in str(error)
