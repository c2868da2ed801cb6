"""`parkwatt check`: tries everything that the configuration names, and says how to mend what does not work."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from agent.check import machine
from agent.check.broker import broker, broker_of_running, keys, tls
from agent.check.disk import control_socket, store
from agent.check.finding import Finding, broken, works
from agent.check.meter import meter
from agent.check.metrics import metrics
from agent.check.person import READ, Person
from agent.check.places import input_places, model_cache, model_source
from agent.check.sources import guards, pushed_source, region, signal_source
from agent.check.unit import Unit, installed, runs_as, unit_findings
from agent.control import NoAgentAnswersError, ask
from agent.devices import probed
from agent.reports import utc_now
from agent.settings import BackendSettings, ConfigError, Settings, load
from agent.status import Status
from agent.store import StoreUnusable
from agent.store.reading import reading
from backends.limits import Limits
from backends.limits import described as described_limits
from firmware_shims.clock import boottime_ns
from firmware_shims.pushed import PushedSignals
from firmware_shims.reading import Source

CONFIGURATION: Final = "configuration"


async def examine(config: Path, tell: Callable[[Finding], object]) -> list[Finding]:
    """The configuration and, if it is right, everything that it names; `tell` hears each finding at once."""
    found: list[Finding] = []
    try:
        settings = load(config)
    except ConfigError as error:
        for problem in error.problems:
            found.append(_refused(config, problem))
            tell(found[-1])
        return found
    async for finding in _tried(config, settings, installed()):
        found.append(finding)
        tell(finding)
    return found


def _refused(config: Path, problem: str) -> Finding:
    """A fault that keeps the configuration from being read: one of the file, or of the environment."""
    if problem.startswith("environment "):
        text = problem.removeprefix("environment ")
        return broken(CONFIGURATION, "environment", text, "correct or unset that variable")
    text = problem.removeprefix(f"{config}: ")
    unread = text.startswith("cannot be read")
    fix = "name a file that can be read with --config" if unread else f"correct it in {config.name}"
    return broken(CONFIGURATION, str(config), text, fix)


async def _tried(config: Path, settings: Settings, unit: Unit | None) -> AsyncIterator[Finding]:
    """The configuration, the machine, and then what the agent is to use, one after the other."""
    person = runs_as(unit)
    running = agent_running(settings)
    yield configuration(config, person)
    for finding in _machine(settings):
        yield finding
    if unit is not None:
        for finding in unit_findings(unit, config, settings):
            yield finding
    sources = settings.open_signals(boottime_ns)
    async for finding in _signals(settings, sources, running):
        yield finding
    for section in settings.backends:
        for finding in await backend(section):
            yield finding
    yield await meter(settings, sources)
    yield await model_source(settings.models, person)
    for finding in _files(settings, running, person, unit):
        yield finding
    yield broker_of_running(settings, running) if running else await broker(settings)


def _files(
    settings: Settings, running: Status | None, person: Person, unit: Unit | None
) -> Iterator[Finding]:
    """What lies on this computer, or is to be made there."""
    yield model_cache(settings.models, person)
    yield from input_places(settings.inputs, person)
    yield from store(settings, running, person)
    yield control_socket(settings, running, person, unit.folders if unit else ())
    yield from metrics(settings.metrics, running=running is not None)
    yield keys(settings, person)
    yield from tls(settings, person, utc_now())


def configuration(config: Path, person: Person) -> Finding:
    """The file can be used; whether whoever runs the agent can read it is another matter."""
    if person.may(config, READ):
        return works(CONFIGURATION, str(config), "can be used")
    fix = f"let {person.name} read it: chgrp {person.name} {config}, chmod 0640 {config}"
    return broken(CONFIGURATION, str(config), f"{person.name}, who runs the agent, cannot read it", fix)


def _machine(settings: Settings) -> Iterator[Finding]:
    yield from machine.software()
    yield from machine.confinement()
    try:
        with reading(settings.store.path) as ledger:
            floor_s = ledger.facts.time_floor()
    except StoreUnusable:  # there is none yet, or its own finding says what is wrong
        floor_s = 0.0
    yield machine.clock(time.time(), floor_s)


async def _signals(
    settings: Settings, sources: Sequence[Source], running: Status | None
) -> AsyncIterator[Finding]:
    heard: dict[str, frozenset[str]] = {}
    for source in sources:
        if isinstance(source, PushedSignals):
            yield pushed_source(source, settings, running)
        else:
            finding, heard[source.name] = await signal_source(source)
            yield finding
    for finding in guards(settings.policy, sources, heard):
        yield finding
    yield region(settings, sources)


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


def _mend_backend(use: str) -> str:
    return f"install what it needs (pip install 'parkwatt[{use}]'), or remove this [[backends]] section"
