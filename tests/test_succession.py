"""Whether a release can go on with what another one has left: what deploy/install.sh asks before it switches."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from config_files import config_file, service_paths
from test_store_upgrade import NEWEST, laid

from agent.store import Store, StoreUnusable
from agent.succession import main as succession


def test_a_store_of_an_older_release_is_looked_at_and_not_touched(tmp_path: Path) -> None:
    path = laid(tmp_path / "agent.db", 1)
    before = path.read_bytes()
    assert succession(["--store", str(path)]) == 0
    assert path.read_bytes() == before
    assert succession(["--store", str(tmp_path / "none.db")]) == 0, "a first installation"


def test_a_store_of_a_newer_release_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = laid(tmp_path / "agent.db", 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
    before = path.read_bytes()
    config = config_file(tmp_path, service_paths(tmp_path))
    assert succession(["--store", str(path)]) == 1
    assert succession(["--config", str(config)]) == 1
    refusal = f"schema version {NEWEST + 1} is newer than {NEWEST}, the newest that this parkwatt knows"
    fix = "install the parkwatt that wrote it, or set store.path to another file"
    assert capsys.readouterr().err == f"parkwatt: store.path {path}: {refusal}; {fix}\n" * 2
    with pytest.raises(StoreUnusable, match=refusal):  # the agent itself says the same
        Store.open(path, max_bytes=50_000_000)
    assert path.read_bytes() == before


def test_a_broken_store_is_no_obstacle(tmp_path: Path) -> None:
    path = laid(tmp_path / "agent.db", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    assert succession(["--store", str(path)]) == 0, "the agent saves what it can when it starts"


def test_the_configuration_must_be_one_that_it_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert succession(["--config", str(config_file(tmp_path, service_paths(tmp_path)))]) == 0
    assert succession(["--config", str(config_file(tmp_path, "\n[mqtt]\nprot = 1\n"))]) == 1
    assert "mqtt.prot: unknown key" in capsys.readouterr().err
