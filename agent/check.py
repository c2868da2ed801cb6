"""`parkwatt check`: tries everything that the configuration names, and says how to mend what does not work."""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from agent.broker import link_options
from agent.control import NoAgentAnswersError, ask
from agent.devices import probed
from agent.link import Link
from agent.meter_settings import MeterSettings
from agent.models import unsupported
from agent.policy.conditions import required_signals, unwatched
from agent.policy.settings import PolicySettings
from agent.protocol.keys import KeyFileError, load_public_keys
from agent.protocol.reasons import Reason
from agent.settings import BackendSettings, ConfigError, Settings, load
from agent.status import Status
from agent.store import StoreUnusable
from agent.store.database import connect, locked, one_line_refusals
from backends.limits import Limits
from backends.limits import described as described_limits
from firmware_shims.clock import boottime_ns
from firmware_shims.power.meter import JouleSource, Meter, MeterFailed
from firmware_shims.power.pack import NEEDED
from firmware_shims.power.sampled import PERIOD_S
from firmware_shims.pushed import PushedSignals
from firmware_shims.reading import Quality, Reading, Snapshot, Source

CONFIGURATION: Final = "configuration"
ARRIVAL_S: Final = 4.0
"""Every message of a car that is awake has come by then; a KUKSA provider that repeats each second takes two."""
BROKER_S: Final = 3.0
METER_S: Final = 1.0


class Finding(msgspec.Struct, frozen=True):
    """One thing that was tried. `fix` says how to mend it; what works has none."""

    part: str
    name: str
    ok: bool
    text: str
    fix: str = ""


def works(part: str, name: str, text: str) -> Finding:
    """It can be used as it is."""
    return Finding(part, name, True, text)


def broken(part: str, name: str, text: str, fix: str) -> Finding:
    """It cannot be used before somebody does what `fix` says."""
    return Finding(part, name, False, text, fix)


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


def described(finding: Finding) -> str:
    """One line for what works, two for what does not."""
    if finding.ok:
        return f"ok       {finding.part}: {finding.name}: {finding.text}"
    return f"PROBLEM  {finding.part}: {finding.name}: {finding.text}\n    fix: {finding.fix}"


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
    for section in settings.backends:
        for finding in await backend(section):
            yield finding
    yield await meter(settings, sources)
    yield model_source(settings)
    yield store(settings, running)
    yield broker_of_running(settings, running) if running else await broker(settings)
    yield keys(settings)


def agent_running(settings: Settings) -> Status | None:
    """What an agent that already runs on this configuration says of itself."""
    try:
        return msgspec.convert(ask(settings.control.socket, {"cmd": "status"})["status"], Status)
    except NoAgentAnswersError:
        return None


async def signal_source(source: Source) -> Finding:
    """Listen for a moment: whether the interface opens and anything of the map arrives."""
    listener = _Listener(asyncio.get_running_loop())
    stop = threading.Event()
    with _warnings("firmware_shims") as warned:
        listening = asyncio.create_task(asyncio.to_thread(source.run, listener, stop))
        arrived = asyncio.create_task(listener.arrived.wait())
        await asyncio.wait({listening, arrived}, timeout=ARRIVAL_S, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        arrived.cancel()
        try:
            await listening
        except (OSError, ValueError) as error:
            warned.append(str(error))
    if listener.arrived.is_set():
        return works("signals", source.name, f"{len(listener.good)} signals arrive")
    if warned:
        return broken("signals", source.name, warned[-1], "correct map or options, or bring the interface up")
    if listener.connected:
        return broken(
            "signals",
            source.name,
            f"the interface is up, and none of the {len(source.stale_after_s)} known signals came in"
            f" {ARRIVAL_S:g} s",
            "wake the car, or name the map of this car",
        )
    return broken(
        "signals", source.name, f"nothing came in {ARRIVAL_S:g} s", "check the interface named in options"
    )


def pushed_source(source: PushedSignals, settings: Settings, running: Status | None) -> Finding:
    """What is pushed goes to the agent that runs: take its word."""
    unknown = [
        blocker.value
        for blocker in (running.blockers if running else ())
        if blocker.code is Reason.UNKNOWN_SIGNAL and blocker.value in source.stale_after_s
    ]
    if unknown:
        text = f"the agent that runs now has no good value of {unknown[0]}"
        return broken(
            "signals", source.name, text, "push it again and again, at least twice in stale_after_s"
        )
    where = f"over {settings.control.socket} while the agent runs"
    return works("signals", source.name, f"{len(source.stale_after_s)} signals, to be pushed {where}")


def guards(policy: PolicySettings, sources: Sequence[Source]) -> Finding:
    """Whether the sources together offer every signal without which no work is ever allowed."""
    offered = frozenset(path for source in sources for path in source.stale_after_s)
    required = required_signals(policy)
    if missing := sorted(required - offered):
        text = f"no source offers {', '.join(missing)}: work is never allowed"
        return broken("policy", "required signals", text, "add a source that does, or a map with these paths")
    text = f"all {len(required)} are offered"
    if blind := [condition.name for condition in unwatched(offered)]:
        text += f"; no source offers what these guards need, so they do not apply: {', '.join(blind)}"
    return works("policy", "required signals", text)


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


async def meter(settings: Settings, sources: Sequence[Source]) -> Finding:
    """Read the power meter for a moment."""
    section = settings.meter
    names = {backend.use for backend in settings.backends}
    if unknown := sorted(set(section.covers) - names):
        fix = f"correct meter.covers: {', '.join(sorted(names))}"
        return broken("meter", section.use, f"covers {unknown[0]}, which is no backend here", fix)
    if section.use == "none":
        return works("meter", "none", "no joules are reported, and tasks that limit them are refused")
    if section.use == "pack":
        return _pack_meter(sources)
    found = section.meter(lambda: Snapshot(0, {}), boottime_ns)
    if found is not None:
        return await _measuring(found, section, names)
    text = f"CPU seconds x {section.watts_per_core:g} W per core: an estimate, reported as a model"
    return works("meter", section.use, text)


async def _measuring(found: Meter, section: MeterSettings, backends: Collection[str]) -> Finding:
    try:
        watts = await _shown_w(found)
    except MeterFailed as failed:
        return broken("meter", section.use, failed.why, failed.fix)
    finally:
        found.close()
    covered = sorted(name for name in backends if section.covered(name, found.scope))
    if not covered:
        fix = "take another meter, or name in meter.covers what it measures"
        return broken("meter", found.name, f"measures {found.scope.value} and covers no backend here", fix)
    kind = "counted" if found.source is JouleSource.COUNTER else "integrated"
    text = f"{watts:.1f} W now, {kind}, of {found.scope.value}; covers {', '.join(covered)}"
    return works("meter", found.name, text)


async def _shown_w(found: Meter) -> float:
    """The mean power over a moment; raises MeterFailed."""
    readings = [await asyncio.to_thread(found.read)]
    for _ in range(round(METER_S / PERIOD_S)):
        await asyncio.sleep(PERIOD_S)
        readings.append(await asyncio.to_thread(found.read))
    first, last = readings[0], readings[-1]
    joules = last.joules - first.joules
    if last.since_ns > first.at_ns or joules <= 0:
        raise MeterFailed(
            f"it has not counted on for {METER_S:g} s", "see whether the sensor works, or take another meter"
        )
    return joules / (last.at_ns - first.at_ns) * 1e9


def _pack_meter(sources: Sequence[Source]) -> Finding:
    offered = {path for source in sources for path in source.stale_after_s}
    if missing := [path for path in NEEDED if path not in offered]:
        fix = "add a signal source that does, or take a meter of the computer itself"
        return broken("meter", "pack", f"no source offers {', '.join(missing)}", fix)
    text = "integrated from the car's signals while the agent runs and the pack gives; minutes at least"
    return works("meter", "pack", text)


def model_source(settings: Settings) -> Finding:
    """Whether models can come from where the configuration says."""
    source = settings.models.source
    if why := unsupported(source):
        return broken("models", source, why, "set models.source to a file:/// folder")
    return works("models", source, "taken by hash when a task asks for one")


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
    try:
        options = link_options(settings)
    except (OSError, UnicodeDecodeError) as error:
        return broken("broker", name, f"password_file: {error}", "give a readable file with the password")
    up = asyncio.Event()
    link = Link(options, on_message=lambda _: None, on_up=lambda _: up.set())
    with _warnings("agent.link"):  # they say what the finding says
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
    try:
        found = load_public_keys(folder)
    except KeyFileError as error:
        problem = str(error).removeprefix(f"{folder}: ")
        return broken("keys", str(folder), problem, "put the fleet's <kid>.pem files there")
    if not found:
        return broken("keys", str(folder), "no <kid>.pem in it", "put the fleet's <kid>.pem files there")
    return works("keys", str(folder), f"{len(found)} public keys: {', '.join(found)}")


class _Listener:
    """A sink that only notes that something came. Called from the source's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.arrived = asyncio.Event()
        self.connected = False
        self.good: set[str] = set()
        self._loop = loop

    def update(self, readings: Sequence[Reading]) -> None:
        self.good.update(reading.path for reading in readings if reading.quality is Quality.GOOD)
        if self.good:
            self._loop.call_soon_threadsafe(self.arrived.set)

    def heard(self, source: str, now_ns: int) -> None:
        del source, now_ns
        self.connected = True


def _mend_backend(use: str) -> str:
    return f"install what it needs (pip install 'parkwatt[{use}]'), or remove this [[backends]] section"


@contextmanager
def _warnings(logger_name: str) -> Iterator[list[str]]:
    """Collect what a logger would warn of: a source that retries for ever tells its trouble only there."""
    texts: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    logger = logging.getLogger(logger_name)
    collector = Collector(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(collector)
    try:
        yield texts
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagate
