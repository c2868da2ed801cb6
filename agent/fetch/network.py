"""What a fetch takes from the world around it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from agent.fetch.addresses import Resolve, resolved
from firmware_shims.clock import Clock, boottime_ns


@dataclass(frozen=True, slots=True)
class Patience:
    """When a connection is given up, and how often and when the next one is tried. The numbers are a judgement.

    A connection ends after `stall_s` without a byte, or after `window_s` that brought fewer than `window_bytes` (1 KiB/s).
    `tries` count from the last one that brought `progress_bytes`.
    """

    stall_s: float = 10.0
    window_s: float = 60.0
    window_bytes: int = 61_440
    tries: int = 5
    progress_bytes: int = 1_048_576
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    longest_asked_s: float = 120.0
    """What a server may ask for with Retry-After; who asks for more is not waited for."""


@dataclass(frozen=True, slots=True)
class Network:
    """Names, time and chance."""

    resolve: Resolve = resolved
    clock: Clock = boottime_ns
    patience: Patience = Patience()
    jitter: Callable[[], float] = random.random
    """0 to 1: the part of a wait that is waited."""


LIVE: Final = Network()
"""The real ones."""
