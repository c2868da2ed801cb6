"""`parkwatt check`: tries everything that the configuration names, and says how to mend what does not work."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from agent.broker import link_options
from agent.check.finding import Finding, broken, works
from agent.check.meter import meter
from agent.check.overheard import warnings_of
from agent.check.places import input_places, model_source
from agent.check.sources import guards, pushed_source, region, signal_source
from agent.control import NoAgentAnswersError, ask
from agent.devices import probed
from agent.link import Link
from agent.settings import BackendSettings, ConfigError, Settings, load
from agent.status import Status
from agent.store import StoreUnusable
from agent.store.database import connect, locked, one_line_refusals
from agent.trusted_keys import look_into
from backends.limits import Limits
from backends.limits import described as described_limits
from firmware_shims.clock import boottime_ns
from firmware_shims.pushed import PushedSignals

CONFIGURATION: Final = "configuration"
BROKER_S: Final = 3.0


async def examine(config: Path, tell: Callable[[Finding], object]) -> list[Finding]:
    """The configuration and, if it is right, everything that it names; `tell` hears each finding at once."""
    found: list[Finding] = []
    try:
        settings = load(config)
    except ConfigError as error:
        for problem in error.problems:
            found.append(broken(CONFIGURATION, str(config), problem, "correct it there"))
            tell(found[-1])
        return found
    found.append(works(CONFIGURATION, str(config), "can be used"))
    tell(found[-1])
    async for finding in _tried(settings):
        found.append(finding)
        tell(finding)
    return found


async def _tried(settings: Settings) -> AsyncIterator[Finding]:
    """Signals, backends, meter, models, store, broker and keys, one after the other."""
    running = agent_running(settings)
    sources = settings.open_signals(boottime_ns)
    for source in sources:
        if isinstance(source, PushedSignals):
            yield pushed_source(source, settings, running)
        else:
            yield await signal_source(source)
    yield guards(settings.policy, sources)
    yield region(settings, sources)
    for section in settings.backends:
        for finding in await backend(section):
            yield finding
    yield await meter(settings, sources)
    yield await model_source(settings.models)
    for finding in input_places(settings.inputs):
        yield finding
    yield store(settings, running)
    yield broker_of_running(settings, running) if running else await broker(settings)
    yield keys(settings)


def agent_running(settings: Settings) -> Status | None:
    """What an agent that already runs on this configuration says of itself."""
    try:
        return msgspec.convert(ask(settings.control.socket, {"cmd": "status"})["status"], Status)
    except NoAgentAnswersError:
        return None


async def backend(section: BackendSettings) -> Sequence[Finding]:
    """Start a worker process and let it try its devices."""
    result = await probed(section.use, section.options, Limits(memory_bytes=section.max_memory_bytes))
    if result.problem:
        return [broken("backends", section.use, result.problem, _mend_backend(section.use))]
    found = []
    for device in result.devices:
        name = f"{section.use} on {device.name}"
        if device.why:
            found.append(broken("backends", name, device.why, _mend_backend(section.use)))
        else:
            found.append(works("backends", name, f"usable for {', '.join(device.formats)}"))
    found = found or [broken("backends", section.use, "no device found", _mend_backend(section.use))]
    return [*found, works("limits", f"worker of {section.use}", described_limits(result.limits))]


def store(settings: Settings, running: Status | None) -> Finding:
    """Open the store as the service would; where there is none yet, nothing is created."""
    path = settings.store.path
    if running:
        return works("store", str(path), "in use by the agent that runs now")
    if not path.exists():
        if os.access(path.parent, os.W_OK | os.X_OK):
            return works("store", str(path), "will be created at the first start")
        fix = f"create {path.parent} and give it to the agent's user"
        return broken("store", str(path), "its folder is missing or not writable", fix)
    try:
        with one_line_refusals(path), locked(path), closing(connect(path, settings.store.max_bytes)):
            return works("store", str(path), "can be opened")
    except StoreUnusable as error:
        problem, _, fix = str(error).rpartition("; ")
        return broken("store", str(path), problem, fix)


async def broker(settings: Settings) -> Finding:
    """Connect with the vehicle's own credentials, and leave its session and subscriptions as they are."""
    name = f"{settings.mqtt.host}:{settings.mqtt.port}"
    up = asyncio.Event()
    link = Link(link_options(settings), on_message=lambda _: None, on_up=lambda _: up.set())
    with warnings_of("agent.link"):  # they say what the finding says
        running = asyncio.create_task(link.run())
        try:
            async with asyncio.timeout(BROKER_S):
                await up.wait()
        except TimeoutError:
            problem = link.status.error or f"no answer within {BROKER_S:g} s"
            return broken("broker", name, problem, "correct section [mqtt], or start the broker")
        finally:
            await link.close()
            await running
    return works("broker", name, f"accepts {settings.vehicle.id}")


def broker_of_running(settings: Settings, running: Status) -> Finding:
    """A second connection would throw the running agent off the broker: take its own word."""
    name = f"{settings.mqtt.host}:{settings.mqtt.port}"
    if running.link.up:
        return works("broker", name, "the agent that runs now is connected")
    problem = f"the agent that runs now is not connected: {running.link.last_error}"
    return broken("broker", name, problem, "correct section [mqtt], or start the broker")


def keys(settings: Settings) -> Finding:
    """Whether there is a key to check a task's signature with."""
    folder = settings.trust.task_keys_dir
    if not settings.trust.require_signatures:
        return works("keys", str(folder), "not needed: trust.require_signatures is false")
    found = look_into(folder)
    if found.problems:
        faults = [problem.rpartition(": ") for problem in found.problems]
        text = "; ".join(fault.removeprefix(f"{folder}: ") for fault, _, _ in faults)
        return broken("keys", str(folder), f"{text}; {found}", "; ".join(fix for _, _, fix in faults))
    return works("keys", str(folder), str(found))


def _mend_backend(use: str) -> str:
    return f"install what it needs (pip install 'parkwatt[{use}]'), or remove this [[backends]] section"
