"""SIGHUP: the configuration file is read and validated again, and what a running agent can take up holds from then on."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from pydantic import BaseModel

from agent.notify import Notices
from agent.settings import ConfigError, Settings, load
from firmware_shims.clock import Clock

if TYPE_CHECKING:
    from agent.service import Service

OF_THE_REGION: Final = frozenset({"trust.residency", "vehicle.region_file", "vehicle.region_margin_m"})
"""They describe `vehicle.region`, which is in the topics: a new one waits for a restart, and they with it."""
AT_ONCE: Final = frozenset({"log.level", "policy", "tasks", "trust.max_age_s"}) | OF_THE_REGION
"""Keys, and whole sections, that can change under a running agent."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """From one configuration to another: what holds from now on, and the keys that differ.

    `waiting` are those that take a restart: in `settings` they are as before.
    """

    settings: Settings
    applied: tuple[str, ...]
    waiting: tuple[str, ...]


def change(running: Settings, wanted: Settings) -> Change:
    """What of `wanted` a running agent takes up."""
    moves = running.vehicle.region != wanted.vehicle.region
    differing = tuple(_differing(running, wanted))
    applied = tuple(key for key in differing if _at_once(key) and not (moves and key in OF_THE_REGION))
    values: dict[str, dict[str, Any]] = defaultdict(dict)
    for key in applied:
        section, _, name = key.partition(".")
        values[section][name] = getattr(getattr(wanted, section), name)
    update = {section: getattr(running, section).model_copy(update=new) for section, new in values.items()}
    waiting = tuple(key for key in differing if key not in applied)
    return Change(running.model_copy(update=update), applied, waiting)


def _at_once(key: str) -> bool:
    return key in AT_ONCE or key.partition(".")[0] in AT_ONCE


def _differing(running: Settings, wanted: Settings) -> Iterator[str]:
    """Keys with another value, in the order of the file; an array of tables is one key."""
    for section in Settings.model_fields:
        before, after = getattr(running, section), getattr(wanted, section)
        if not isinstance(before, BaseModel):
            if before != after:
                yield section
            continue
        for name in type(before).model_fields:
            if getattr(before, name) != getattr(after, name):
                yield f"{section}.{name}"


async def follow(
    asked: asyncio.Event,
    config: Path,
    service: "Service",
    notices: Notices,
    monotonic: Clock = time.monotonic_ns,
) -> NoReturn:
    """Reload each time that it is asked for, until cancelled. What is asked meanwhile is done once more afterwards."""
    while True:
        await asked.wait()
        asked.clear()
        notices.reloading(monotonic())
        await _reload(config, service, notices)
        notices.ready()


async def _reload(config: Path, service: "Service", notices: Notices) -> None:
    """Files are read beside the loop, which never waits for a disk. A file with a fault in it changes nothing."""
    try:
        wanted = await asyncio.to_thread(load, config)
    except ConfigError as error:
        for problem in error.problems:
            log.error("nothing is reloaded: %s", problem)  # noqa: TRY400 - the traceback is ours, the fault is not
        notices.remark(f"nothing was reloaded: {error.problems[0]}")
        return
    found = change(service.settings, wanted)
    service.adopt(found.settings)
    logging.getLogger().setLevel(found.settings.log.level.upper())
    log.info("reloaded %s: %s", config, ", ".join(found.applied) or "no key of it has changed at once")
    if found.waiting:
        log.warning("a restart is needed for: %s", ", ".join(found.waiting))
    notices.remark(f"a restart is needed for {', '.join(found.waiting)}" if found.waiting else "")
