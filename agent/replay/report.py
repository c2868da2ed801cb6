"""The account of a replay as one document: what `--json` prints, and what table and plot are made of."""

import datetime as dt

import msgspec

from agent.protocol.messages import Mode
from agent.protocol.reasons import Reason
from agent.replay.account import PLUGGED_IN, Account, Place
from agent.replay.recording import unix_s


class Log(msgspec.Struct, frozen=True):
    """What was replayed. `clock`: whose time `begins` and `ends` are.

    `assumed`: what the log does not hold and was taken for granted. `missing`: signals that the policy requires and
    that the log does not hold either, so that no work was allowed. `stale_after_s`: how long a reading counts; None:
    as the map says, by signal.
    """

    file: str
    format: str
    clock: str
    begins: str
    ends: str
    stale_after_s: float | None
    assumed: tuple[str, ...]
    missing: tuple[str, ...]


class Rules(msgspec.Struct, frozen=True):
    """What it was judged by. `settings`: the configuration file, or `defaults`."""

    settings: str
    compute_w: float
    grid_proof_w: float


class Places(msgspec.Struct, frozen=True):
    """Seconds by where the car was. Those up to `plugged_in_s` add up to all of the log, the last three to that."""

    gap_s: float
    owner_s: float
    unplugged_s: float
    unclear_s: float
    plugged_in_s: float
    proven_s: float
    charge_ended_s: float
    unproven_s: float


class Lost(msgspec.Struct, frozen=True):
    """Seconds that a reason blocked: as the first in the policy's order, and whether first or not."""

    code: Reason
    name: str
    first_s: float
    any_s: float


class Report(msgspec.Struct, frozen=True):
    """The account. `ready_s`: what a fleet could have used. `unknown_s`: by signal, without the gaps."""

    log: Log
    rules: Rules
    log_s: float
    ready_s: float
    starts: int
    soc_first_pct: float | None
    soc_last_pct: float | None
    modes_s: dict[str, float]
    places: Places
    reasons: tuple[Lost, ...]
    unknown_s: dict[str, float]


def reported(account: Account, log: Log, rules: Rules) -> Report:
    """The document of a finished account."""
    modes_s = {mode.value: _seconds(length_ns) for mode, length_ns in account.mode_ns.most_common()}
    return Report(
        log=log,
        rules=rules,
        log_s=_seconds((account.to_ns or 0) - (account.from_ns or 0)),
        ready_s=modes_s.get(Mode.READY.value, 0.0),
        starts=account.starts,
        soc_first_pct=account.soc_first_pct,
        soc_last_pct=account.soc_last_pct,
        modes_s=modes_s,
        places=_places(account),
        reasons=tuple(
            Lost(reason, reason.label, _seconds(account.first_ns[reason]), _seconds(length_ns))
            for reason, length_ns in account.any_ns.most_common()
        ),
        unknown_s={path: _seconds(length_ns) for path, length_ns in account.unknown_ns.most_common()},
    )


def wall_clock(at_ns: int, zone: dt.tzinfo) -> dt.datetime | None:
    """Date and time of a log's stamp on the clocks of `zone`; None where the log has no wall clock."""
    seconds = unix_s(at_ns)
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, zone).replace(tzinfo=None)


def _places(account: Account) -> Places:
    lengths_ns = account.place_ns
    return Places(
        **{f"{place.value}_s": _seconds(lengths_ns[place]) for place in Place},
        plugged_in_s=_seconds(sum(lengths_ns[place] for place in PLUGGED_IN)),
    )


def _seconds(length_ns: int) -> float:
    return round(length_ns / 1e9, 6)  # a reading is stale a nanosecond after its age: no news for anybody
