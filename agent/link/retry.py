"""When to connect again, and when to give up the session. Pure: no clock, no loop."""

import random
from collections.abc import Callable
from dataclasses import dataclass

SESSION_TAKEN_OVER = 0x8E
SERVER_SHUTTING_DOWN = 0x8B
DOUBLINGS_WITH_PROGRESS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended. `up_s` is the time since the CONNACK, None when there was none."""

    up_s: float | None = None
    acknowledged: int = 0
    """Messages that this connection brought and we acknowledged."""
    code: int | None = None
    """MQTT 5 reason code, where the broker gave one."""
    planned: bool = False
    """We ended it ourselves, to take up renewed credentials."""


class Retry:
    """Back-off with full jitter, and the circuit breaker against a session that kills its connections.

    A persistent session delivers a message that we cannot read again and again, and every connection
    dies of it. After `drops` connections in a row that each lived for less than `settled_s` and got no
    message acknowledged, `clean_start` asks for one connect that throws the session away. What was queued
    in it is lost, and offered again by its sender when the lease runs out.
    """

    def __init__(
        self,
        *,
        first_s: float = 0.5,
        cap_s: float = 128.0,
        settled_s: float = 10.0,
        drops: int = 5,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.clean_start = False
        self._first_s = first_s
        self._cap_s = cap_s
        self._settled_s = settled_s
        self._drops_allowed = drops
        self._jitter = jitter
        self._doublings = 0
        self._quick_drops = 0

    def after(self, outcome: Outcome) -> float:
        """Seconds to wait before the next attempt; sets `clean_start` for it."""
        if outcome.planned:
            self.clean_start = False
            return 0.0
        if outcome.up_s is not None:
            self.clean_start = False
            self._judge(outcome, outcome.up_s)
        if outcome.code == SESSION_TAKEN_OVER:
            # Somebody else uses our client id. Coming back at once would throw him out in turn.
            self._doublings = max(self._doublings, 6)
        ceiling_s = min(self._cap_s, self._first_s * 2.0**self._doublings)
        if ceiling_s < self._cap_s:
            self._doublings += 1
        return self._jitter() * ceiling_s

    def _judge(self, outcome: Outcome, up_s: float) -> None:
        if up_s >= self._settled_s:
            self._doublings = 0
            self._quick_drops = 0
        elif outcome.acknowledged:
            # Work gets through between the breaks. Not quicker yet: few brokers say that a twin has thrown us out.
            self._doublings = min(self._doublings, DOUBLINGS_WITH_PROGRESS)
            self._quick_drops = 0
        elif outcome.code not in (SESSION_TAKEN_OVER, SERVER_SHUTTING_DOWN):
            self._quick_drops += 1
        if self._quick_drops >= self._drops_allowed:
            self.clean_start = True
            self._quick_drops = 0
