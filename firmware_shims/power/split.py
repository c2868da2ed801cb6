"""Splits the joules of one meter over the runs that were under way. Pure: no clock, no lock, no thread.

Two readings bound a window. What it has above the idle baseline belongs to the runs under way in it, by their device
seconds: between runs the computer idles, by definition. A device does one run at a time, so of several that were
given to it the first counts.

No run waits for a reading. Its part in closed windows is known when it ends; the rest is charged at the rate of the
windows before. When that window closes, what was charged too little or too much goes into a purse, out of which the
next runs are paid by their seconds. So the charges add up to the meter, and none is further off than what a window
holds. Nothing is clamped but the charge of a run, which is never below 0: what is missing to that stays in the purse.
"""

from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from typing import Final

from firmware_shims.power.baseline import IdleBaseline
from firmware_shims.power.meter import MeterFailed, MeterReading
from firmware_shims.power.purse import Joules, Purse, Rate

NS: Final = 1_000_000_000
WINDOW_STEPS: Final = 5
"""A window holds so many new figures of the meter: one more or less is a fifth of it."""
IDLE_S: Final = 0.5
STUCK_S: Final = 10.0
BLIND_SHARE: Final = 0.1
"""A run has no figure when more of it than this was not measured."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What a run took. None: it was measured, but too short to tell; its joules are in the charges that follow."""

    active_j: float | None
    idle_j: float | None


TOO_SHORT: Final = Charge(None, None)


@dataclass(slots=True, eq=False)
class Run:
    """A run that was given to `device`. `share`: what closed windows had for it; `blind_ns`: time not measured."""

    device: str
    begin_ns: int
    share: Joules = field(default_factory=Joules)
    blind_ns: int = 0


@dataclass(slots=True)
class Account:
    """Where the active joules went: measured = charged - guessed + unclaimed + purse + under way.

    `unclaimed_j`: of runs that were given up, that their device counted itself, or that were measured in part.
    `guessed_j`: charged at the rate of before while the meter failed. `other_j`: off the baseline while nothing ran.
    """

    measured_j: float = 0.0
    charged_j: float = 0.0
    guessed_j: float = 0.0
    unclaimed_j: float = 0.0
    other_j: float = 0.0
    purse_j: float = 0.0
    under_way_j: float = 0.0


@dataclass(slots=True)
class _Window:
    """The open window: device seconds of what ended in it, what those were charged for it, and how long it was busy."""

    charged_s: float = 0.0
    unclaimed_s: float = 0.0
    guessed: Joules = field(default_factory=Joules)
    busy_ns: int = 0


class Split:
    """Is told of readings and of what begins and ends, in the order in which it happens."""

    def __init__(self, baseline: IdleBaseline, resolution_j: float, resolution_s: float) -> None:
        self._baseline = baseline
        self._resolution_j = resolution_j
        self._window_s = WINDOW_STEPS * resolution_s
        self._queues: defaultdict[str, deque[Run]] = defaultdict(deque)
        self._start: MeterReading | None = None
        self._window = _Window()
        self._cut_ns: int | None = None
        self._busy_ns: int | None = None
        self._blind_ns: int | None = None
        self._rate = Rate()
        self._purse = Purse()
        self._account = Account()

    @property
    def under_way(self) -> bool:
        """Whether anything runs."""
        return self._busy_ns is not None

    @property
    def unsettled(self) -> bool:
        """Whether readings are needed: something runs, or has run in a window that is still open."""
        return self.under_way or (self._window.busy_ns > 0 and self._blind_ns is None)

    @property
    def account(self) -> Account:
        """The account as it stands."""
        return replace(
            self._account,
            purse_j=self._purse.holds.active - self._window.guessed.active,
            under_way_j=sum(run.share.active for queue in self._queues.values() for run in queue),
        )

    def begin(self, device: str, now_ns: int) -> Run:
        """A run was given to a device."""
        if not self.unsettled:
            self._cut_ns = now_ns
        if self._busy_ns is None:
            self._busy_ns = now_ns
        run = Run(device, now_ns)
        self._queues[device].append(run)
        return run

    def end(self, run: Run, begin_ns: int, end_ns: int, now_ns: int) -> Charge | None:
        """A run is done, from when to when its device says; None: too much of it was not measured."""
        begin_ns = min(max(begin_ns, run.begin_ns), now_ns)
        end_ns = min(max(end_ns, begin_ns), now_ns)
        open_s = self._leave(run, begin_ns, end_ns, now_ns)
        seconds = (end_ns - begin_ns) / NS
        blind_ns = run.blind_ns
        if self._blind_ns is not None:
            blind_ns += max(0, end_ns - max(begin_ns, self._blind_ns))
        if self._baseline.now is None or blind_ns > BLIND_SHARE * (end_ns - begin_ns):
            self._give_up(run, open_s)
            return None
        self._window.charged_s += open_s
        if not self._rate.is_known:
            self._purse.put(run.share, max(0.0, seconds - open_s))
            return TOO_SHORT
        guess = self._rate.guess(open_s)
        self._window.guessed.add(guess)
        guess.add(run.share)
        paid = self._purse.pay(guess, seconds)
        self._account.charged_j += paid.active
        return Charge(paid.active, paid.idle)

    def withdraw(self, run: Run, now_ns: int) -> None:
        """A run was given up, or its device has counted for itself: its share is nobody's."""
        begin_ns = run.begin_ns if self._queues[run.device][0] is run else now_ns
        self._give_up(run, self._leave(run, begin_ns, now_ns, now_ns))

    def read(self, reading: MeterReading) -> None:
        """Take a reading. Raises MeterFailed when the counter stands still for too long to be believed."""
        start = self._start
        if start is None:
            self._open(reading)
            return
        if reading.since_ns > start.at_ns:
            self._lose(start.at_ns)
            self._open(reading)
            return
        if self._cut_ns is not None:
            start = self._cut(start, self._cut_ns, reading)
        seconds, moved = _between(start, reading)
        if moved < self._resolution_j and seconds > max(STUCK_S, 2 * self._window_s):
            self._lose(start.at_ns)
            raise MeterFailed(
                f"the counter has not moved for {seconds:.0f} s", "see whether the sensor works"
            )
        if moved < self._resolution_j or seconds < self._window_s:
            return
        if self.unsettled:
            self._settle(start, reading)
        elif seconds >= IDLE_S:
            self._idle(start, reading)
        else:
            return
        self._start = reading

    def fail(self) -> None:
        """The meter has failed: until the next reading nothing is measured."""
        if self._blind_ns is None:
            self._lose(self._start.at_ns if self._start else 0)

    def rest(self) -> None:
        """Nothing is unsettled, and nobody will look for a while: the next reading begins anew."""
        self._start = self._cut_ns = self._blind_ns = None
        self._window = _Window()

    def _leave(self, run: Run, begin_ns: int, end_ns: int, now_ns: int) -> float:
        """Take a run off its device; returns how many of its seconds lie in the open window."""
        queue = self._queues[run.device]
        was_first = queue[0] is run
        queue.remove(run)
        if was_first and queue:
            queue[0].begin_ns = max(queue[0].begin_ns, end_ns)
        start_ns = self._start.at_ns if self._start else 0
        if self._busy_ns is not None and not any(self._queues.values()):
            self._window.busy_ns += max(1, now_ns - max(self._busy_ns, start_ns))
            self._busy_ns = None
        if self._blind_ns is not None:
            return 0.0
        return max(0, end_ns - max(begin_ns, start_ns)) / NS

    def _give_up(self, run: Run, open_s: float) -> None:
        self._window.unclaimed_s += open_s
        self._account.unclaimed_j += run.share.active

    def _firsts(self) -> list[Run]:
        """What the devices do now."""
        return [queue[0] for queue in self._queues.values() if queue]

    def _lose(self, from_ns: int) -> None:
        """What the open window holds will never be known."""
        self._blind_ns = from_ns
        self._account.guessed_j += self._window.guessed.active
        self._start, self._window, self._cut_ns = None, _Window(), None

    def _open(self, reading: MeterReading) -> None:
        if self._blind_ns is not None:
            for run in self._firsts():
                run.blind_ns += max(0, reading.at_ns - max(run.begin_ns, self._blind_ns))
            self._window = _Window()
        self._start, self._cut_ns, self._blind_ns = reading, None, None

    def _cut(self, start: MeterReading, cut_ns: int, reading: MeterReading) -> MeterReading:
        """Close the window before work began in the middle of it; power was the same all through."""
        at_ns = min(max(cut_ns, start.at_ns), reading.at_ns)
        part = (at_ns - start.at_ns) / max(1, reading.at_ns - start.at_ns)
        middle = replace(start, joules=start.joules + (reading.joules - start.joules) * part, at_ns=at_ns)
        self._idle(start, middle)
        self._start, self._cut_ns = middle, None
        return middle

    def _idle(self, start: MeterReading, end: MeterReading) -> None:
        """Nothing ran."""
        seconds, joules = _between(start, end)
        base = self._baseline.now
        if base is not None:
            self._account.other_j += joules - base.watts * seconds
        if seconds >= max(IDLE_S, self._window_s):
            self._baseline.add(joules / seconds, end.at_ns)

    def _settle(self, start: MeterReading, end: MeterReading) -> None:
        """Share a window among what ran in it."""
        window, self._window = self._window, _Window()
        base, (window_s, joules) = self._baseline.now, _between(start, end)
        busy_ns = window.busy_ns
        if self._busy_ns is not None:
            busy_ns += end.at_ns - max(self._busy_ns, start.at_ns)
        firsts = {run: max(0, end.at_ns - max(run.begin_ns, start.at_ns)) for run in self._firsts()}
        seconds = window.charged_s + window.unclaimed_s + sum(firsts.values()) / NS
        if base is None:
            for run, span_ns in firsts.items():
                run.blind_ns += span_ns
            return
        if joules / window_s < base.watts - 2 * base.spread_w:
            # a computer at work does not draw less than an idle one
            self._baseline.add(joules / window_s, end.at_ns)
        total = Joules(joules - base.watts * window_s, base.watts * min(window_s, max(0, busy_ns) / NS))
        if not seconds:
            self._account.other_j += total.active
            return
        self._account.measured_j += total.active
        self._rate.follow(total, seconds)
        for run, span_ns in firsts.items():
            run.share.add(total, span_ns / NS / seconds)
        self._account.unclaimed_j += total.active * window.unclaimed_s / seconds
        owed = Joules()
        owed.add(total, window.charged_s / seconds)
        owed.add(window.guessed, -1.0)
        self._purse.put(owed, window.charged_s)


def _between(start: MeterReading, end: MeterReading) -> tuple[float, float]:
    """Seconds and joules."""
    return (end.at_ns - start.at_ns) / NS, end.joules - start.joules
