"""One turn of a setting: at the rate that is asked for, and as fast as it goes. Joules are what the device said."""

import asyncio
from typing import Final, Protocol

from benchmarks.throughput import histogram
from benchmarks.throughput.play import Closed, Open, Played, Script
from benchmarks.throughput.processes import cpu_s
from benchmarks.throughput.results import Turn

NS: Final = 1_000_000_000
WARM_RUNS: Final = 3


class Side(Protocol):
    """What runs the model, in a process of its own."""

    pid: int

    async def play(self, script: Script) -> Played:
        """Let it play; raises what the side raises."""


async def warm_up(side: Side, rows: int) -> None:
    """Let be over what only first runs do."""
    await side.play(Closed(runs=WARM_RUNS, batch=rows))


async def at_rate(side: Side, rate_per_s: float, seconds: float, rows: int) -> Turn:
    """Requests at even intervals, as a camera sends them; a run as soon as `rows` of them are there.

    The turn lasts until the next request would come: what threads do after a run counts, too. A latency counts from
    when its own request came, waiting for the others included.
    """
    runs = max(1, round(rate_per_s * seconds / rows))
    came_ns = [round(request * NS / rate_per_s) for request in range(runs * rows)]
    complete_ns = [came_ns[request - request % rows + rows - 1] for request in range(runs * rows)]
    played = await side.play(Open(tuple(complete_ns), rows))
    before_s, after_s = cpu_s(side.pid), runs * rows / rate_per_s
    if played.seconds < after_s:
        await asyncio.sleep(after_s - played.seconds)
    waited_ns = [complete - came for complete, came in zip(complete_ns, came_ns, strict=True)]
    latencies_ns = [took + waited for took, waited in zip(played.latencies_ns, waited_ns, strict=True)]
    return Turn(
        inferences=played.inferences,
        seconds=max(played.seconds, after_s),
        cpu_s=played.cpu_s + cpu_s(side.pid) - before_s,
        latency=histogram.collected(latencies_ns),
        joules=played.joules,
    )


async def at_full_load(side: Side, seconds: float, rows: int) -> Turn:
    """One run of `rows` rows after the other."""
    played = await side.play(Closed(seconds=seconds, batch=rows))
    latency = histogram.collected(played.latencies_ns)
    return Turn(played.inferences, played.seconds, played.cpu_s, latency, played.joules)
