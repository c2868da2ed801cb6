"""Installed distributions against what parkwatt's own metadata asks for."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Final

DISTRIBUTION: Final = "parkwatt"
REQUIREMENT: Final = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*(?P<bounds>[^;]*)")
BOUND: Final = re.compile(r"(>=|<=|==|<|>)\s*([0-9.]+)")
RIVALS: Final = (("onnxruntime", "onnxruntime-gpu"),)
"""Wheels that bring the same import package: which of them is used depends on what was installed last."""


@dataclass(frozen=True, slots=True)
class Package:
    """What is asked for and what is there; `problem` is empty where the two fit."""

    name: str
    requirement: str
    version: str = ""
    problem: str = ""


def packages() -> list[Package]:
    """What parkwatt needs in any case; what its extras bring is tried where it is used."""
    return [_package(line) for line in metadata.requires(DISTRIBUTION) or () if "extra ==" not in line]


def rivals() -> Iterator[Sequence[str]]:
    """Groups of installed distributions that exclude each other."""
    for names in RIVALS:
        if all(_installed(name) for name in names):
            yield names


def _package(requirement: str) -> Package:
    match = REQUIREMENT.match(requirement)
    name, bounds = (match["name"], match["bounds"]) if match else (requirement, "")
    version = _installed(name)
    if not version:
        return Package(name, requirement, problem="is not installed")
    unmet = [f"{how}{bound}" for how, bound in BOUND.findall(bounds) if not _fits(version, how, bound)]
    problem = f"{version} is installed, {' and '.join(unmet)} is needed" if unmet else ""
    return Package(name, requirement, version, problem)


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _fits(version: str, how: str, bound: str) -> bool:
    """Compare releases; what follows them (rc1, .post2) is not looked at."""
    ours, theirs = _release(version), _release(bound)
    length = max(len(ours), len(theirs))
    ours, theirs = ((*part, *(0,) * (length - len(part))) for part in (ours, theirs))
    return {
        ">=": ours >= theirs,
        "<=": ours <= theirs,
        "==": ours == theirs,
        "<": ours < theirs,
        ">": ours > theirs,
    }[how]


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
