"""The one owner of a meter: reads it while something runs or the idle baseline is wanted, and charges runs for it."""

import logging
import threading
from typing import Final

from firmware_shims.clock import Clock
from firmware_shims.power.baseline import Baseline, IdleBaseline
from firmware_shims.power.meter import JouleSource, Meter, MeterFailed
from firmware_shims.power.sampled import PERIOD_S
from firmware_shims.power.split import NS, Account, Charge, Run, Split

RETRY_S: Final = 5.0

log = logging.getLogger(__name__)


class MeterOwner:
    """Every method may be called from any thread; only `run` and `sample` touch the meter, and only one of them.

    `begin`, `end` and `withdraw` are arithmetic under a lock: they wait for no meter and no reading.
    """

    def __init__(self, meter: Meter, clock: Clock) -> None:
        self._meter = meter
        self._clock = clock
        self._idle = IdleBaseline()
        self._split = Split(self._idle, meter.resolution_j, meter.resolution_s)
        self._lock = threading.Condition()
        self._may_calibrate = False
        self._hurry = False
        self._stopped = False
        self._failure = ""
        self._retry_ns = 0

    @property
    def source(self) -> JouleSource:
        """Where the joules come from."""
        return self._meter.source

    @property
    def why(self) -> str:
        """Why there are no figures now; empty while there are, or before anybody looked."""
        return self._failure

    @property
    def baseline(self) -> Baseline | None:
        """Idle power with its age and spread; None before it was measured."""
        with self._lock:
            return self._idle.now

    @property
    def account(self) -> Account:
        """Where the joules went."""
        with self._lock:
            return self._split.account

    def begin(self, device: str) -> Run:
        """A run is given to a device; to be followed by one `end` or `withdraw`."""
        with self._lock:
            if not self._split.unsettled:
                self._hurry = True
                self._lock.notify()
            return self._split.begin(device, self._clock())

    def end(self, run: Run, begin_ns: int, end_ns: int) -> Charge | None:
        """What a run took, from when to when its device says; None while the meter, or its baseline, has no figure."""
        with self._lock:
            return self._split.end(run, begin_ns, end_ns, self._clock())

    def withdraw(self, run: Run) -> None:
        """A run that gave nothing, or whose device counts for itself."""
        with self._lock:
            self._split.withdraw(run, self._clock())

    def calibrate(self, allowed: bool) -> None:
        """Whether the idle baseline may be measured while nothing runs."""
        with self._lock:
            if allowed and not self._may_calibrate:
                self._hurry = True
                self._lock.notify()
            self._may_calibrate = allowed

    def run(self) -> None:
        """Sample until `stop`; asleep without a time-out while there is nothing to measure."""
        try:
            while not self._stopped:
                wait_s = self.sample()
                with self._lock:
                    if not self._hurry and not self._stopped:
                        self._lock.wait(wait_s)
                    self._hurry = False
        finally:
            self._meter.close()

    def stop(self) -> None:
        """Let `run` return; what ends after this has no figure any more."""
        with self._lock:
            self._stopped = True
            self._split.fail()
            self._lock.notify()

    def sample(self) -> float | None:
        """Read the meter once if that is of use; returns after how many seconds to come again, None: when woken."""
        with self._lock:
            now_ns = self._clock()
            old_in_s = self._idle.old_in_s(now_ns) if self._may_calibrate else None
            wanted = self._split.unsettled or (old_in_s is not None and old_in_s <= 0)
            if not wanted:
                self._split.rest()
        if not wanted:
            self._meter.close()
            return old_in_s
        if self._failure and now_ns < self._retry_ns:
            return (self._retry_ns - now_ns) / NS
        try:
            reading = self._meter.read()
            with self._lock:
                self._split.read(reading)
        except MeterFailed as failure:
            return self._failed(failure)
        if self._failure:
            log.info("meter %s: answers", self._meter.name)
            self._failure = ""
        return PERIOD_S

    def _failed(self, failure: MeterFailed) -> float:
        with self._lock:
            self._split.fail()
            self._retry_ns = self._clock() + int(RETRY_S * NS)
        if failure.why != self._failure:
            log.warning("meter %s: %s; %s", self._meter.name, failure.why, failure.fix)
            self._failure = failure.why
        return RETRY_S
