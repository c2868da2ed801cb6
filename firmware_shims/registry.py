"""Signal sources by name: `shim = "..."` in agent.toml."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from firmware_shims import scenario, signal_map
from firmware_shims.can import CanSource
from firmware_shims.clock import Clock
from firmware_shims.linux import LinuxSensors
from firmware_shims.reading import Source
from firmware_shims.replay import candump_source

ENTRY_POINTS: Final = "parkwatt.signals"

OpenSource = Callable[[str, str | None, Mapping[str, Any], Clock], Source]
"""(name, map, options, clock) -> source, not running yet. What an entry point of a third party must be.

ValueError with one line for options that cannot work.
"""


def _can(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> Source:
    return CanSource(name, _signal_map(map_name), options, clock)


def _replay(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> Source:
    return candump_source(name, _signal_map(map_name), Path(_only(options, "file")), clock)


def _scenario(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> Source:
    if map_name is not None:
        raise ValueError(f"map = {map_name!r}: a scenario has no bus and takes no map")
    return scenario.Scenario(name, scenario.load(_only(options, "file", scenario.PARKED_AND_CHARGING)), clock)


def _linux(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> Source:
    if map_name is not None:
        raise ValueError(f"map = {map_name!r}: the computer's own sensors take no map")
    if unknown := sorted(set(options) - {"chip_zones", "root"}):
        raise ValueError(f"options.{unknown[0]} is unknown: only options.chip_zones and options.root are")
    zones = options.get("chip_zones")
    if not isinstance(zones, list) or not zones or not all(isinstance(zone, str) for zone in zones):
        raise ValueError(f"options.chip_zones is {zones!r}: a list of thermal zone types is needed")
    return LinuxSensors(name, zones, clock, Path(options.get("root", "/sys")))


def _signal_map(map_name: str | None) -> signal_map.SignalMap:
    if map_name is None:
        raise ValueError(f"map is missing: give a path, or one of: {', '.join(signal_map.shipped())}")
    return signal_map.load(map_name)


def _only(options: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """The one option that a shim takes; ValueError when it is missing, no text, or not alone."""
    unknown = sorted(set(options) - {key})
    if unknown:
        raise ValueError(f"options.{unknown[0]} is unknown: only options.{key} is")
    value = options.get(key, default)
    if not isinstance(value, str) or not value:
        raise ValueError(f"options.{key} is {value!r}: a file name is needed")
    return value


SHIMS: Final[Mapping[str, OpenSource]] = {
    "can": _can,
    "linux": _linux,
    "replay": _replay,
    "scenario": _scenario,
}


def _opener(shim: str) -> OpenSource:
    """Built in, or a third party's; those are only looked up when the name is not one of ours."""
    if shim in SHIMS:
        return SHIMS[shim]
    others = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if shim not in others:
        raise ValueError(f"shim = {shim!r} is unknown; known: {', '.join(sorted({*SHIMS, *others}))}")
    opener: OpenSource = others[shim].load()
    return opener


def open_source(
    shim: str,
    *,
    name: str,
    map: str | None,  # noqa: A002 - the key's name in agent.toml
    options: Mapping[str, Any],
    clock: Clock,
) -> Source:
    """The source that a `[[signals]]` section describes; nothing is opened before it runs.

    ValueError with one line for people for a shim, map or option that cannot work.
    """
    opener = _opener(shim)
    try:
        return opener(name, map, options, clock)
    except ValueError as error:
        raise ValueError(f"signals {name!r} (shim {shim}): {error}") from error
