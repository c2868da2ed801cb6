"""What people and programs ask of the agent, beside what the car shows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Orders:
    """The orders that stand now.

    `draining`: the fleet's. `paused`: the vehicle's operating system needs the computer. `consent`: the owner's
    word, None before any. `departure_s`: when the owner means to leave, unix seconds, None when nobody said.
    """

    draining: bool = False
    paused: bool = False
    consent: bool | None = None
    departure_s: float | None = None
