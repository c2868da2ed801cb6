"""Whether the car's signals arrive, and whether they are all that the guards need."""

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agent.check.finding import Finding, broken, works
from agent.check.overheard import warnings_of
from agent.policy.conditions import required_signals, unwatched
from agent.policy.region import POSITION
from agent.policy.settings import PolicySettings
from agent.protocol.reasons import Reason
from agent.settings import Settings
from agent.status import Status
from firmware_shims.pushed import PushedSignals
from firmware_shims.reading import Quality, Reading, Source

ARRIVAL_S: Final = 4.0
"""Every message of a car that is awake has come by then; a KUKSA provider that repeats each second takes two."""
MEND: Final = {
    "can": "bring the interface up (ip link set can0 up type can bitrate 500000), or correct [signals.options]",
    "kuksa": "start the databroker, or correct [signals.options]: host, port, ca_file, token_file",
    "linux": "name sensors that are here in [signals.options.sensors], or load the sensor's driver",
    "gpio": "let the agent's user open the chip, or correct [signals.options]: gpioinfo lists chips and lines",
}
"""By shim, where it says what is in its way."""


async def signal_source(source: Source) -> tuple[Finding, frozenset[str]]:
    """Listen for a moment: whether the interface opens, and which signals of the map arrive."""
    listener = _Listener(asyncio.get_running_loop(), frozenset(source.stale_after_s))
    stop = threading.Event()
    with warnings_of("firmware_shims") as warned:
        listening = asyncio.create_task(asyncio.to_thread(source.run, listener, stop))
        complete = asyncio.create_task(listener.complete.wait())
        await asyncio.wait({listening, complete}, timeout=ARRIVAL_S, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        complete.cancel()
        try:
            await listening
        except (OSError, ValueError) as error:
            warned.append(str(error))
    return _heard(source, listener, warned), frozenset(listener.good)


def _heard(source: Source, listener: "_Listener", warned: Sequence[str]) -> Finding:
    known = len(source.stale_after_s)
    if listener.good:
        silent = sorted(source.stale_after_s.keys() - listener.good)
        missed = f"; not in {ARRIVAL_S:g} s: {', '.join(silent)}" if silent else ""
        if silent and warned:
            missed += f" ({warned[-1]})"
        return works("signals", source.name, f"{len(listener.good)} of {known} signals arrive{missed}")
    if warned:
        text = warned[-1].removeprefix(f"signals {source.name}: ").removesuffix("; trying again")
        fix = MEND.get(source.name.partition("-")[0], "correct its section [[signals]]")
        return broken("signals", source.name, text, fix)
    if listener.connected:
        text = f"the interface is up, and none of the {known} known signals came in {ARRIVAL_S:g} s"
        return broken("signals", source.name, text, "wake the car, or name the map of this car")
    text = f"nothing came in {ARRIVAL_S:g} s"
    return broken("signals", source.name, text, "check the interface named in options")


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


def region(settings: Settings, sources: Sequence[Source]) -> Finding:
    """Whether the car's position is held against the region that it is said to be in."""
    vehicle = settings.vehicle
    if vehicle.region_file is None:
        text = "taken for true: no vehicle.region_file, so the car's position is not compared with it"
        return works("region", vehicle.region, text)
    offered = frozenset(path for source in sources for path in source.stale_after_s)
    if missing := [path for path in POSITION if path not in offered]:
        text = f"vehicle.region_file is set, and no source offers {', '.join(missing)}"
        return broken("region", vehicle.region, text, "add a source that does, or remove region_file")
    text = f"the position is held against {vehicle.region_file}, {vehicle.region_margin_m:g} m outside still count"
    return works("region", vehicle.region, text)


def guards(
    policy: PolicySettings, sources: Sequence[Source], heard: Mapping[str, frozenset[str]]
) -> Iterator[Finding]:
    """Whether the sources together offer every signal without which no work is ever allowed, and whether it comes.

    `heard` by the name of each source that was listened to. One from which nothing came has a finding of its own.
    """
    offered = frozenset(path for source in sources for path in source.stale_after_s)
    required = required_signals(policy)
    if missing := sorted(required - offered):
        text = f"no source offers {', '.join(missing)}: work is never allowed"
        yield broken("policy", "required signals", text, "add a source that does, or a map with these paths")
        return
    silent = sorted(required - _may_come(sources, heard))
    if silent:
        text = f"{', '.join(silent)} did not come in {ARRIVAL_S:g} s: no work is allowed without"
        yield broken(
            "policy", "required signals", text, "see whether the car sends it, or add a source that does"
        )
        return
    text = f"all {len(required)} are offered"
    if blind := [condition.name for condition in unwatched(offered)]:
        text += f"; no source offers what these guards need, so they do not apply: {', '.join(blind)}"
    yield works("policy", "required signals", text)


def _may_come(sources: Sequence[Source], heard: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """What came, and all that those offer from which nothing came, or that were not listened to."""
    return frozenset(
        path for source in sources for path in heard.get(source.name) or frozenset(source.stale_after_s)
    )


class _Listener:
    """A sink that only notes what came. Called from the source's thread."""

    urgent = True

    def __init__(self, loop: asyncio.AbstractEventLoop, known: frozenset[str]) -> None:
        self.complete = asyncio.Event()
        self.connected = False
        self.good: set[str] = set()
        self._known = known
        self._loop = loop

    def update(self, readings: Sequence[Reading]) -> None:
        self.good.update(reading.path for reading in readings if reading.quality is Quality.GOOD)
        if self.good >= self._known:
            self._loop.call_soon_threadsafe(self.complete.set)

    def heard(self, source: str, now_ns: int) -> None:
        del source, now_ns
        self.connected = True
