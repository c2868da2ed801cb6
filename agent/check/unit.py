"""The systemd unit, where one is installed: whether it starts this agent, and leaves it what the configuration needs."""

import itertools
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.check.finding import Finding, broken, works
from agent.check.person import Person
from agent.settings import Settings

NAME: Final = "parkwatt.service"
FOLDERS: Final = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
"""Where systemd looks for units, the first found counts (systemd.unit(5))."""
HOMES: Final = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache", "RuntimeDirectory": "/run"}
ASSIGNMENT: Final = re.compile(r"^([A-Za-z]+)=(.*)$", re.MULTILINE)
YES: Final = frozenset({"1", "yes", "true", "on"})


@dataclass(frozen=True, slots=True)
class Unit:
    """What is set in `[Service]` of a unit and its drop-ins: every value of a key, in order."""

    path: Path
    values: Mapping[str, Sequence[str]]

    def last(self, key: str) -> str:
        """The value that holds; empty where there is none."""
        return self.values[key][-1] if self.values.get(key) else ""

    def words(self, key: str) -> list[str]:
        """The words of all values; an empty value takes back those before it (systemd.exec(5))."""
        found: list[str] = []
        for value in self.values.get(key, ()):
            found = [*found, *value.split()] if value else []
        return found

    @property
    def folders(self) -> list[Path]:
        """Those that systemd makes when it starts the unit, and gives to its user."""
        return [Path(home) / name for key, home in HOMES.items() for name in self.words(key)]

    def is_on(self, key: str) -> bool:
        """Whether a switch is on."""
        return self.last(key).lower() in YES


def installed(root: Path = Path("/")) -> Unit | None:
    """The unit of this computer with its drop-ins; None where there is none."""
    for folder in FOLDERS:
        path = root / folder.removeprefix("/") / NAME
        if path.is_file():
            drop_ins = {
                file.name: file
                for place in reversed(FOLDERS)
                for file in (root / place.removeprefix("/") / f"{NAME}.d").glob("*.conf")
            }
            return _read([path, *(drop_ins[name] for name in sorted(drop_ins))])
    return None


def _read(files: Sequence[Path]) -> Unit:
    values: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        text = file.read_text().replace("\\\n", " ")
        for key, value in ASSIGNMENT.findall(text):
            values[key].append(value.strip())
    return Unit(files[0], values)


def runs_as(unit: Unit | None) -> Person:
    """The user that the agent will be: the unit's, where it exists, else who asks."""
    if unit is not None and unit.last("User"):
        try:
            return Person.named(unit.last("User"))
        except KeyError:
            pass  # `unit_finding` says so
    return Person.asking()


def unit_findings(unit: Unit, config: Path, settings: Settings) -> Iterator[Finding]:
    """Everything that would keep the unit's agent from starting, or from what it is to use."""
    problems = list(_problems(unit, config, settings))
    for text, fix in problems:
        yield broken("unit", str(unit.path), text, fix)
    if not problems:
        yield works("unit", str(unit.path), f"starts this configuration as {unit.last('User') or 'root'}")


def _problems(unit: Unit, config: Path, settings: Settings) -> Iterator[tuple[str, str]]:
    """What is wrong, and how to mend it."""
    command = shlex.split(unit.last("ExecStart"))
    program = Path(command[0].lstrip("-@:+!")) if command else Path()
    if not program.is_file():
        yield (
            f"ExecStart: {program} is not there",
            "install the agent with deploy/install.sh, or correct ExecStart",
        )
    named = [after for word, after in itertools.pairwise(command) if word == "--config"]
    if named and Path(named[0]).absolute() != config.absolute():
        yield f"starts with {named[0]}, not with {config}", f"check that file, or name {config} in ExecStart"
    if user := unit.last("User"):
        try:
            Person.named(user)
        except KeyError:
            fix = "create it: systemd-sysusers, with deploy/parkwatt.sysusers.conf in /etc/sysusers.d"
            yield f"User={user} is not a user of this computer", fix
    yield from _hidden(unit, settings)
    yield from _read_only(unit, settings)


def _hidden(unit: Unit, settings: Settings) -> Iterator[tuple[str, str]]:
    """What the configuration uses and the unit takes away."""
    families = unit.words("RestrictAddressFamilies")
    kernel_can = any(
        each.shim == "can" and each.options.get("interface", "socketcan") == "socketcan"
        for each in settings.signals
    )
    if kernel_can and families and "AF_CAN" not in families:
        yield "RestrictAddressFamilies leaves out AF_CAN, and a source listens to socketcan", _drop_in("can")
    if not unit.is_on("PrivateDevices"):
        return
    if any(each.shim == "gpio" for each in settings.signals):
        yield "PrivateDevices hides the GPIO lines that a source listens to", _drop_in("gpio")
    for backend in settings.backends:
        if backend.use == "nvidia":
            yield "PrivateDevices hides the GPU of the nvidia backend", _drop_in("gpu")


def _drop_in(name: str) -> str:
    folder = f"/etc/systemd/system/{NAME}.d"
    return f"cp {folder}/{name}.conf.example {folder}/{name}.conf, which says what else it needs; systemctl daemon-reload"


def _read_only(unit: Unit, settings: Settings) -> Iterator[tuple[str, str]]:
    """Folders that the agent writes to, and that ProtectSystem=strict shows it read-only."""
    if unit.last("ProtectSystem") != "strict":
        return
    writable = [*unit.folders, *(Path(word.lstrip("-+")) for word in unit.words("ReadWritePaths"))]
    needed = {
        "store.path": settings.store.path.parent,
        "models.cache_dir": settings.models.cache_dir,
        "control.socket": settings.control.socket.parent,
    }
    for key, folder in needed.items():
        if not any(folder.absolute().is_relative_to(place) for place in writable):
            yield (
                f"{key} lies in {folder}, which ProtectSystem=strict makes read-only",
                f"add ReadWritePaths={folder} in a drop-in, or move it to {writable[0] if writable else 'a folder of its own'}",
            )
