"""Memory and processor time of everything of ours while the car is blocked and its CAN bus speaks."""

import asyncio
import tempfile
from pathlib import Path

from benchmarks.report import Figure
from benchmarks.rig import Rig, broker, parked_car
from firmware_shims import signal_map, vss

KIB_PER_MIB = 1024
TICKS_PER_S = 100


async def measure(seconds: int) -> list[Figure]:
    """Sample once a second for `seconds`, after five seconds of warming up, with the driver's door open."""
    rss_mib: list[float] = []
    pss_mib: list[float] = []
    with tempfile.TemporaryDirectory() as folder, broker() as running, parked_car() as car:
        car.set(vss.DRIVER_DOOR, True)
        async with Rig(Path(folder), running, car, "null", settle_s=60).agent() as agent:
            await asyncio.sleep(5)
            status = await agent.ask()
            if status["mode"] != "blocked":
                raise RuntimeError(f"the car should be blocked, its mode is {status['mode']}")
            begun_s = _cpu_s(agent.process.pid)
            for _ in range(seconds):
                await asyncio.sleep(1)
                pids = _family(agent.process.pid)
                rss_mib.append(sum(_memory_mib(pid, "Rss") for pid in pids))
                pss_mib.append(sum(_memory_mib(pid, "Pss") for pid in pids))
            share_pct = 100 * (_cpu_s(agent.process.pid) - begun_s) / seconds
    with_python_can_mib = [await _with_python_can() for _ in range(3)]
    frames = sum(1000 / message.period_ms for message in signal_map.load("tesla_model3").messages)
    return [
        Figure(f"resident memory, blocked, {frames:.0f} CAN frames/s", "MiB", rss_mib, "<= 48 MiB"),
        Figure("proportional memory, the same", "MiB", pss_mib),
        Figure("resident memory, python-can loaded, silent bus", "MiB", with_python_can_mib, "<= 48 MiB"),
        Figure("processor time, the same", "% of one core", [share_pct]),
        Figure("processes of ours, the same", "", [float(len(pids))]),
    ]


async def _with_python_can() -> float:
    """What a car with any other interface than socketcand pays: python-can is loaded then."""
    with tempfile.TemporaryDirectory() as folder, broker() as running, parked_car() as car:
        silent = {"interface": "virtual", "channel": "silent"}
        rig = Rig(Path(folder), running, car, "null", settle_s=60, can_options=silent)
        async with rig.agent() as agent:
            await asyncio.sleep(5)
            return sum(_memory_mib(pid, "Rss") for pid in _family(agent.process.pid))


def _family(pid: int) -> list[int]:
    """The process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _family(int(child))
    return found


def _memory_mib(pid: int, kind: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / KIB_PER_MIB
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no {kind}")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
