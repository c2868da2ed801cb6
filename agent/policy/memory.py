"""What the policy remembers between two looks. Plain frozen data: the same memory and view give the same verdict."""

from dataclasses import dataclass, field

import msgspec

from agent.policy.conditions import CONDITIONS
from agent.policy.low_pass import LowPass
from agent.policy.pack_use import PackUse
from agent.policy.region import UNSEEN, Whereabouts


class Standing(msgspec.Struct, frozen=True):
    """What is remembered of one condition.

    `held_ns`: holds without a break since then, and counts after `window_ns`. `failing_ns`: false since then, but
    still within its grace. `spent_ns`: what dips that ended at `mended_ns` have used of that grace. `broken_ns`: blocks
    since then. `lapsed`: it counted once, broke, and has not counted again.
    """

    held_ns: int | None = None
    window_ns: int = 0
    failing_ns: int | None = None
    spent_ns: int = 0
    mended_ns: int = 0
    broken_ns: int | None = None
    lapsed: bool = False


@dataclass(frozen=True, slots=True)
class Lasting:
    """What outlives the process: what work took from the traction battery, and the starts of the last hour.

    `outside`: the car was last seen outside of its region; where that was is not kept.
    """

    pack_use: PackUse = field(default_factory=PackUse)
    starts_ns: tuple[int, ...] = ()
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Standings in the order of `CONDITIONS`; the supply's filter, the pack's use and the starts of the last hour.

    `whereabouts`: where the car was last seen, for as long as the process lives.
    """

    standings: tuple[Standing, ...] = field(default_factory=lambda: tuple(Standing() for _ in CONDITIONS))
    allowed: bool = False
    on_pack: bool = False
    supply_v: LowPass | None = None
    pack_use: PackUse = field(default_factory=PackUse)
    starts_ns: tuple[int, ...] = ()
    whereabouts: Whereabouts = UNSEEN

    @property
    def lasting(self) -> Lasting:
        """The part that is kept over a restart."""
        return Lasting(self.pack_use, self.starts_ns, self.whereabouts.outside)


FRESH = Memory()
