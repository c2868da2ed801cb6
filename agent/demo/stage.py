"""Everything that plays: the real service, the simulated car, the fleet's counts, the record; and who looks on."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from agent.demo.record import TICK_S, Record, Tick
from agent.demo.workload import Tally
from agent.service import Service
from agent.settings import Settings
from firmware_shims import vss
from firmware_shims.scenario import Scenario

if TYPE_CHECKING:
    from agent.demo.checks import Check, Facts

MIB: Final = 1 << 20
PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE")


@dataclass(slots=True)
class Stage:
    """What an audience can see."""

    settings: Settings
    service: Service
    car: Scenario
    tally: Tally
    record: Record
    audience: "Audience"
    rows_wanted: int | None
    """Rows of the whole demo; None where time decides."""
    _rows_seen: int = 0

    def tell(self, text: str) -> None:
        """Say what has just happened."""
        at_s = self.record.now_s
        self.record.said.append((at_s, text))
        self.audience.said(at_s, text)

    async def watch(self) -> None:
        """Keep the record until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(TICK_S)

    def look(self) -> None:
        """Look at the car once."""
        service = self.service
        rows = service.executor.rows_done
        tick = Tick(
            at_s=self.record.now_s,
            mode=service.portrait.mode,
            door_open=service.guard.snapshot.good(vss.DRIVER_DOOR) is True,
            blockers=tuple(blocker.reason.label for blocker in service.guard.verdict.blockers),
            budget_w=service.guard.verdict.budget_w,
            rows=rows - self._rows_seen,
            worker_mib=_workers_mib(service),
        )
        self._rows_seen = rows
        self.record.ticks.append(tick)
        self.audience.looked(self)


class Audience(Protocol):
    """How a run is shown while it runs; used as a context manager around it."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    def said(self, at_s: float, text: str) -> None:
        """Show that this was said."""

    def looked(self, stage: Stage) -> None:
        """Show how things stand; called after every look."""

    def summed_up(self, facts: "Facts", checks: "list[Check]") -> None:
        """Show the summary, after the run."""


def _workers_mib(service: Service) -> float | None:
    """Resident memory of the workers; None when there is none."""
    sizes = [_resident_bytes(station.pid) for station in service.stations if station.pid is not None]
    return sum(sizes) / MIB if any(sizes) else None


def _resident_bytes(pid: int) -> int:
    """The second number of /proc/[pid]/statm, in pages (proc(5)); 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0
