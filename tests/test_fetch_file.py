"""Bodies from files of this computer: only those in the folders that the owner has named."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fetching import QUICK, Basket

from agent.fetch.errors import CalledOff, NotFetched
from agent.fetch.fetch import fetch
from agent.fetch.network import Network
from agent.fetch.place import Rules

BODY = os.urandom(100_000)
HERE = Network(patience=QUICK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "inputs of tasks"
    folder.mkdir()
    (folder / "x").write_bytes(BODY)
    return folder


@pytest.fixture
def rules(folder: Path) -> Rules:
    return Rules("inputs", hosts=(), folders=(folder,))


def fetched(path: Path, rules: Rules) -> bytes:
    basket = Basket()
    fetch(path.as_uri(), rules, basket, threading.Event(), HERE)
    return basket.body


def test_a_file_arrives_whole(folder: Path, rules: Rules) -> None:
    assert fetched(folder / "x", rules) == BODY


def test_a_link_inside_the_folder_may_be_followed(folder: Path, rules: Rules) -> None:
    (folder / "link").symlink_to("x")
    assert fetched(folder / "link", rules) == BODY


def test_a_folder_that_is_a_link_itself_is_what_it_leads_to(folder: Path, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(folder)
    assert fetched(alias / "x", Rules("inputs", hosts=(), folders=(alias,))) == BODY


def out_of_it(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def through_a_folder(path: Path) -> None:
    (path.parent / "way").symlink_to("/etc")
    path.symlink_to("way/passwd")


def to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def to_this_process(path: Path) -> None:
    path.symlink_to("/proc/self/environ")


def nowhere(path: Path) -> None:
    path.symlink_to("absent")


def folder_itself(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    "become", [out_of_it, through_a_folder, to_a_device, to_this_process, nowhere, folder_itself, pipe]
)
def test_what_is_no_file_of_the_folder_is_refused(
    folder: Path, rules: Rules, become: Callable[[Path], None]
) -> None:
    become(folder / "y")
    with pytest.raises(NotFetched):
        fetched(folder / "y", rules)


def test_a_fetch_that_is_called_off_stops(folder: Path, rules: Rules) -> None:
    off = threading.Event()
    off.set()
    with pytest.raises(CalledOff):
        fetch((folder / "x").as_uri(), rules, Basket(), off, HERE)
