"""The store and the control socket: whether they can be made, are whose they should be, and have room."""

import shutil
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Final

from agent.check.finding import Finding, broken, works
from agent.check.person import ENTER, WRITE, Person, owner_of
from agent.check.places import first_there
from agent.settings import Settings, StoreSettings
from agent.status import Status
from agent.store import StoreUnusable
from agent.store.aside import kept
from agent.store.database import is_new, locked, one_line_refusals, read_only, refuse_damaged
from agent.store.schema import MIGRATIONS

LOG_BYTES: Final = 4_194_304
"""Of the write-ahead log, beside the database."""


def store(settings: Settings, running: Status | None, person: Person) -> Iterator[Finding]:
    """Look at the store as the service would open it; nothing is created, and nothing brought forward."""
    section, path = settings.store, settings.store.path
    try:
        finding = _state(section, running, person)
    except StoreUnusable as error:
        problem, _, fix = str(error).removeprefix(f"store.path {path}: ").rpartition("; ")
        finding = broken("store", str(path), problem, fix)
    yield finding
    if finding.ok:
        yield _room(section)
    for aside in kept(path):
        text = "a store that was broken; the agent has saved what could be read"
        yield works("store", str(aside), text)


def _state(section: StoreSettings, running: Status | None, person: Person) -> Finding:
    path = section.path
    name = str(path)
    if not person.may(path.parent, WRITE | ENTER):
        fix = f"create {path.parent} and give it to {person.name}"
        return broken("store", name, f"{person.name} cannot write its folder, or it is missing", fix)
    if not path.exists():
        return works("store", name, "will be created at the first start")
    if owner_of(path) != person.name:
        text = f"belongs to {owner_of(path)}, the agent runs as {person.name}"
        return broken("store", name, text, f"chown {person.name}: {path}*")
    if running:
        used = f"{running.store.bytes_used / 1e6:.1f} of {running.store.bytes_max / 1e6:g} MB used"
        return works("store", name, f"in use by the agent that runs now, {used}")
    return _opened(path)


def _opened(path: Path) -> Finding:
    """What lies there, which no agent has in use; raises `StoreUnusable`."""
    with one_line_refusals(path), _held(path):
        if is_new(path):
            return works("store", str(path), "empty, will be made at the first start")
        refuse_damaged(path)
        with closing(read_only(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    newest = len(MIGRATIONS)
    grows = "" if version == newest else f", which the next start brings forward to {newest}"
    return works("store", str(path), f"whole, of schema version {version}{grows}")


def _held(path: Path) -> AbstractContextManager[object]:
    """Nobody else uses it; where it has no lock yet none is made, it would be ours and not the agent's."""
    return locked(path) if path.with_name(f"{path.name}.lock").exists() else nullcontext()


def _room(section: StoreSettings) -> Finding:
    """Whether its disk has room for all that it may grow to."""
    path = section.path
    beside = (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}.ballast"))
    held_bytes = sum(file.stat().st_size for file in beside if file.exists())
    most_bytes = section.max_bytes + LOG_BYTES + section.ballast_bytes
    free_bytes = shutil.disk_usage(first_there(path.parent)).free
    text = f"{free_bytes / 1e6:.0f} MB free on its disk, it may grow by {max(0, most_bytes - held_bytes) / 1e6:.0f} MB"
    if free_bytes + held_bytes < most_bytes:
        return broken("store", "room", text, "lower store.max_bytes or store.ballast_bytes, or free the disk")
    return works("store", "room", text)


def control_socket(
    settings: Settings, running: Status | None, person: Person, made: Collection[Path] = ()
) -> Finding:
    """Whether the vehicle's operating system will find a socket where the configuration says.

    `made` are folders that systemd makes when it starts the agent, and takes away when it stops.
    """
    path, group = settings.control.socket, settings.control.group
    if running:
        return works("control", str(path), "the agent that runs now answers")
    folder = first_there(path.parent)
    if path.parent in made and not path.parent.exists():
        return works("control", str(path), f"the unit makes {path.parent} when it starts")
    if not person.may(folder, WRITE | ENTER):
        fix = (
            f"let {person.name} write {path.parent} (the unit's RuntimeDirectory does), or set control.socket"
        )
        return broken("control", str(path), f"{person.name} cannot make a socket there", fix)
    if path.exists() and not path.is_socket():
        return broken("control", str(path), "is no socket", "remove it, or set control.socket")
    who = f"{person.name} and the members of {group}" if group else f"{person.name} alone"
    return works("control", str(path), f"{who} may connect once the agent runs")
