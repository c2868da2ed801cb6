"""`parkwatt replay`: a log through the policy of a configuration, or through the defaults."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from agent.policy.region import Region
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy
from agent.replay.account import Account, seen_in
from agent.replay.course import Course
from agent.replay.judge import Span, judge
from agent.replay.recording import TESLAFI, Recording, RecordingError, open_recording, unix_s
from agent.replay.report import Log, Report, Rules, reported, wall_clock
from agent.settings import Settings

DEFAULT_W: Final = 60.0
"""What the computer takes where no configuration says it."""
DEFAULTS: Final = "defaults"
CONSENT_ASSUMED: Final = "the owner's consent, which the configuration requires: a log does not hold it"


@dataclass(frozen=True)
class Rulebook:
    """By what a log is judged: the policy's settings, what each backend takes, and where they were found."""

    policy: PolicySettings = field(default_factory=PolicySettings)
    powers_w: tuple[float, ...] = (DEFAULT_W,)
    origin: str = DEFAULTS
    region: Region | None = None

    @property
    def zone(self) -> dt.tzinfo:
        """The clocks of the place where the car lives."""
        return ZoneInfo(self.policy.time_zone)

    def policy_for(self, recording: Recording) -> Policy:
        """The policy of a car whose only source is this recording."""
        declared = frozenset(recording.stale_after_s)
        return Policy(self.policy, declared, sum(self.powers_w), min(self.powers_w), self.region)


def rulebook(config: Path, settings: Settings) -> Rulebook:
    """What a configuration says."""
    powers_w = tuple(backend.max_power_w for backend in settings.backends)
    return Rulebook(settings.policy, powers_w, str(config), settings.vehicle.on_the_map)


@dataclass(frozen=True)
class Replayed:
    """What came out: the account, and its course for a plot."""

    report: Report
    course: Course
    zone: dt.tzinfo


def replay(log: Path, rules: Rulebook, *, map_name: str | None, stale_after_s: float | None) -> Replayed:
    """Judge a whole log; RecordingError for one that cannot be used."""
    zone = rules.zone
    recording = open_recording(log, map_name=map_name, stale_after_s=stale_after_s, zone=zone)
    policy = rules.policy_for(recording)
    account, course = Account(), Course()

    def take(span: Span) -> None:
        account.add(span.from_ns, span.to_ns, span.verdict, seen_in(span.snapshot))
        course.add(span)

    judge(policy, recording, take)
    if account.from_ns is None or account.to_ns is None:
        raise RecordingError(f"{log}: less than two moments with readings: there is no time to judge")
    told = Rules(rules.origin, policy.compute_w, round(policy.settings.grid_ac_factor * policy.compute_w, 3))
    about = _log(recording, policy, account.from_ns, account.to_ns, zone)
    return Replayed(reported(account, about, told), course, zone)


def _log(recording: Recording, policy: Policy, from_ns: int, to_ns: int, zone: dt.tzinfo) -> Log:
    ages_s = set(recording.stale_after_s.values())
    assumed = recording.assumed
    if policy.settings.require_consent:
        assumed = (*assumed, CONSENT_ASSUMED)
    return Log(
        file=str(recording.file),
        format=recording.format,
        clock=_clock(recording, from_ns, policy.settings.time_zone),
        begins=_shown(from_ns, zone),
        ends=_shown(to_ns, zone),
        stale_after_s=ages_s.pop() if len(ages_s) == 1 else None,
        assumed=assumed,
        missing=tuple(sorted(policy.missing)),
    )


def _clock(recording: Recording, at_ns: int, time_zone: str) -> str:
    if recording.format == TESLAFI:
        return "times as in the log"
    return time_zone if unix_s(at_ns) is not None else "seconds as in the log"


def _shown(at_ns: int, zone: dt.tzinfo) -> str:
    moment = wall_clock(at_ns, zone)
    return f"{at_ns / 1e9:g} s" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
