"""Signal sources by name: `shim = "..."` in agent.toml."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from firmware_shims import csv_log, scenario, signal_map
from firmware_shims import options as shim_options
from firmware_shims.can import CanSource
from firmware_shims.clock import Clock
from firmware_shims.gpio import open_line
from firmware_shims.kuksa import open_databroker
from firmware_shims.linux import open_sensors
from firmware_shims.pushed import open_pushed
from firmware_shims.reading import Source
from firmware_shims.replay import ReplayOptions, candump_source

ENTRY_POINTS: Final = "parkwatt.signals"

OpenSource = Callable[[str, str | None, Mapping[str, Any], Clock], Source]
"""(name, map, options, clock) -> source, not running yet. What an entry point of a third party must be.

ValueError with one line for options that cannot work.
"""


def _can(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> Source:
    return CanSource(name, _signal_map(map_name), options, clock)


def _replay(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> Source:
    wanted = shim_options.read(options, ReplayOptions)
    log = Path(wanted.file)
    if log.suffix == ".csv":
        shim_options.refuse_map(map_name, "a CSV names its signals and takes no map")
        stale_after_s = wanted.stale_after_s or csv_log.STALE_AFTER_S
        return csv_log.CsvReplay(name, log, clock, speed=wanted.speed, stale_after_s=stale_after_s)
    if wanted.stale_after_s is not None:
        raise ValueError("options.stale_after_s is for a CSV: a map says itself when a signal is stale")
    return candump_source(name, _signal_map(map_name), log, clock, wanted.speed)


def _scenario(name: str, map_name: str | None, options: Mapping[str, Any], clock: Clock) -> Source:
    shim_options.refuse_map(map_name, "a scenario has no bus and takes no map")
    wanted = shim_options.read(options, scenario.ScenarioOptions)
    return scenario.Scenario(name, scenario.load(wanted.file), clock)


def _signal_map(map_name: str | None) -> signal_map.SignalMap:
    if map_name is None:
        raise ValueError(f"map is missing: give a path, or one of: {', '.join(signal_map.shipped())}")
    return signal_map.load(map_name)


SHIMS: Final[Mapping[str, OpenSource]] = {
    "can": _can,
    "gpio": open_line,
    "kuksa": open_databroker,
    "linux": open_sensors,
    "replay": _replay,
    "scenario": _scenario,
    "socket": open_pushed,
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
