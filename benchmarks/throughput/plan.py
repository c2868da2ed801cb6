"""Which rows a run has: every model on every backend that takes its format, in every scenario."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from backends import registry
from backends.kernel import Device
from backends.process import WorkerDied, WorkerProcess
from benchmarks.throughput.catalogue import Entry, UnknownNameError
from benchmarks.throughput.results import ScenarioName
from benchmarks.throughput.worker_side import BackendChoice


@dataclass(frozen=True, slots=True)
class Planned:
    """A row to come. Without a batch the scenario decides."""

    entry: Entry
    choice: BackendChoice
    scenario: ScenarioName
    batch: int | None

    @property
    def title(self) -> str:
        """For people."""
        batch = f" x{self.batch}" if self.batch else ""
        return f"{self.choice.use} {self.entry.id} {self.scenario}{batch}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows, those of one model together; and what is not among them, a line each."""

    rows: tuple[Planned, ...]
    left_out: tuple[str, ...]


async def planned(
    entries: Sequence[Entry],
    choices: Sequence[BackendChoice],
    scenarios: Sequence[ScenarioName],
    batches: Sequence[int],
) -> Plan:
    """Ask every backend what it takes. Raises `UnknownNameError` for one that is not known or has no usable device."""
    devices = {choice.use: await _usable(choice) for choice in choices}
    rows = [
        Planned(entry, replace(choice, device=device), scenario, batch)
        for entry in entries
        for choice in choices
        if (device := _first_for(entry.format, devices[choice.use]))
        for scenario in scenarios
        for batch in (batches if scenario == "offline" and batches else (None,))
    ]
    left_out = []
    for choice in choices:
        formats = {name for device in devices[choice.use] for name in device.formats}
        foreign = [entry.id for entry in entries if entry.format not in formats]
        if foreign:
            left_out.append(
                f"{choice.use} takes {' and '.join(sorted(formats))}: without {', '.join(foreign)}"
            )
    return Plan(tuple(rows), tuple(left_out))


def _first_for(model_format: str, devices: Sequence[Device]) -> str:
    """Empty where none takes it."""
    return next((device.name for device in devices if model_format in device.formats), "")


async def _usable(choice: BackendChoice) -> Sequence[Device]:
    """Its devices; of several the one that was asked for."""
    try:
        worker = WorkerProcess.start(choice.use, choice.options)
    except registry.UnknownBackend as error:
        raise UnknownNameError(f"--backend {error}") from error
    try:
        devices = await worker.probe()
    except WorkerDied as error:
        raise UnknownNameError(f"--backend {choice.use}: {error.text}") from error
    finally:
        await worker.stop()
    usable = [device for device in devices if not device.why and choice.device in {"", device.name}]
    if not usable:
        seen = (
            "; ".join(f"{each.name}: {each.why or 'usable'}" for each in devices) or "it has no device here"
        )
        raise UnknownNameError(f"--backend {choice.use}: {seen}")
    return usable
