"""Which file the agent takes for its own, and which it leaves alone."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from offers import offer

from agent.store import Ledger, Outcome, Store, StoreUnusable
from agent.store.database import connect
from agent.store.schema import MIGRATIONS, migrate

MAX_BYTES = 50_000_000


async def opened_and_closed(path: Path) -> int:
    async with Store.open(path, max_bytes=MAX_BYTES) as store:
        return store.boot


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


def refusal(path: Path) -> str:
    """The line of the refusal, after which every byte is as it was."""
    before = {file: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    with pytest.raises(StoreUnusable) as refused:
        Store.open(path, max_bytes=MAX_BYTES)
    after = {file: file.read_bytes() for file in before}
    assert after == before
    line = str(refused.value)
    assert line.startswith(f"store.path {path}: ")
    assert "\n" not in line
    return line


async def test_every_start_has_a_boot_number_of_its_own(tmp_path: Path) -> None:
    boots = [await opened_and_closed(tmp_path / "agent.db") for _ in range(3)]
    assert boots == [1, 2, 3]


async def test_only_the_owner_of_the_file_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await opened_and_closed(path)
    path.chmod(0o644)
    async with Store.open(path, max_bytes=MAX_BYTES):
        modes = modes_in(tmp_path)
    assert set(modes) == {"agent.db", "agent.db-wal", "agent.db-shm", "agent.db.lock"}
    assert set(modes.values()) == {0o600}


async def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    async with Store.open(tmp_path / "agent.db", max_bytes=MAX_BYTES) as store:
        settings = await store.run(
            lambda ledger: [
                ledger.connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "foreign_keys", "max_page_count")
            ]
        )
    assert settings == ["wal", 2, 1, MAX_BYTES // 4096]


async def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.touch()
    assert await opened_and_closed(path) == 1


async def test_a_creation_that_lost_its_power_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "agent.db.new").write_bytes(b"half a page")
    (tmp_path / "agent.db.new-journal").write_bytes(b"half a journal")
    assert await opened_and_closed(tmp_path / "agent.db") == 1
    assert set(modes_in(tmp_path)) == {"agent.db", "agent.db.lock"}


async def test_a_newer_schema_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    await opened_and_closed(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    line = refusal(path)
    assert f"schema version {len(MIGRATIONS) + 1} is newer than {len(MIGRATIONS)}" in line
    assert "install the parkwatt that wrote it" in line


async def test_a_database_of_another_application_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "music.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO songs VALUES ('Driving home')")
        connection.commit()
        line = refusal(path)
    assert "another application's database, its id is 0x00000000 and not 0x70776174" in line


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.write_bytes(b"[mqtt]\nhost = '127.0.0.1'\n" * 10)
    assert 'not a database, it begins with b"[mqtt]\\nhost = \'1"' in refusal(path)
    assert "not a database" in refusal(path), "also when it is tried again: no agent has had a store here"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"agent\.db\.lock: No such file or directory; make it a file"):
        Store.open(tmp_path / "nowhere" / "agent.db", max_bytes=MAX_BYTES)


async def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    path.mkdir()
    assert "agent.db: Is a directory" in refusal(path)


async def test_a_second_agent_on_the_same_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with Store.open(path, max_bytes=MAX_BYTES):
        line = refusal(path)
    assert f"in use by process {os.getpid()}; stop that agent, or set another store.path" in line
    assert await opened_and_closed(path) == 2


async def test_an_older_schema_grows_into_the_newest_and_keeps_what_is_owed(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    with closing(connect(path, MAX_BYTES)) as connection:
        ledger = Ledger(connection)
        ledger.accept(offer())
        newer = (*MIGRATIONS, ("ALTER TABLE tasks ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",))
        migrate(connection, path, newer)
        assert connection.execute("SELECT id, colour FROM tasks").fetchall() == [("night-1", "red")]
        assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
        assert ledger.accept(offer()).outcome is Outcome.REPEAT
        migrate(connection, path, newer)


async def test_a_migration_that_fails_half_way_leaves_the_older_schema(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    with closing(connect(path, MAX_BYTES)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="no such table: planets"):
            migrate(connection, path, (*MIGRATIONS, ("CREATE TABLE moons (name)", "DROP TABLE planets")))
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'moons'").fetchall() == []
    assert await opened_and_closed(path) == 1
