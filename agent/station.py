"""One configured backend: its worker process while there is one, and the programs loaded in it."""

import asyncio
import contextlib
import json
import logging
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.guard import Guard, Kill
from agent.job import Job
from agent.program import row_tensors
from agent.protocol.messages import BackendState, ModelFormat
from agent.protocol.reasons import Reason
from agent.settings import BackendSettings
from agent.status import UNTRIED
from backends.group import Reaped
from backends.kernel import Cost, Device, KernelError, Model
from backends.limits import Limits
from backends.process import WorkerProcess
from backends.slots import LoadedProgram

log = logging.getLogger(__name__)
RESTART_PAUSES_S = (0.0, 0.5, 2.0, 10.0, 60.0)
"""Before a worker that died by itself is started again; the last one repeats."""
PROBE_AGAIN_S = 60.0
"""After a worker that found nothing usable: a driver may be loaded, or a device plugged in, after the agent."""
WIRE_FORMATS = frozenset(each.value for each in ModelFormat)


class GateShut(Exception):  # noqa: N818 - an answer, not an error
    """No worker may exist, or nothing may run, now."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A program in a living worker."""

    worker: WorkerProcess
    program: LoadedProgram
    sha256: str
    setup: str
    """What it runs on: see `Station.setup`."""


@dataclass(slots=True, eq=False)
class Station:
    """Owns at most one worker process. Lives on the event loop; only the guard kills from other threads."""

    settings: BackendSettings
    guard: Guard
    on_reaped: Callable[["Station", Kill, Reaped, bool], None]
    """Called when a worker and all its processes are gone; the flag says that nobody had asked for it."""
    models_dir: Path
    """Where models lie that a worker may read."""
    devices: Sequence[Device] | None = None
    deaths: int = 0
    """Workers that died by themselves since the last success."""
    _worker: WorkerProcess | None = None
    _asked: bool = False
    _loads: dict[str, asyncio.Task[Loaded]] = field(default_factory=dict)
    """By the jobs' `program`, the least recently used first."""
    _held: Counter[str] = field(default_factory=Counter)
    _probing: asyncio.Task[Sequence[Device]] | None = None
    _reaping: asyncio.Task[bool] | None = None
    _not_before_s: float = 0.0

    @property
    def name(self) -> str:
        """The backend's name in the configuration."""
        return self.settings.use

    @property
    def pid(self) -> int | None:
        """The worker's process id; None without a worker."""
        return self._worker.pid if self._worker else None

    @property
    def resident(self) -> set[str]:
        """SHA-256 of the models that are loaded."""
        return {load.result().sha256 for load in self._loads.values() if _succeeded(load)}

    def takes(self, job: Job) -> bool:
        """Whether this backend can be the one for a job. Until it was probed only the job's wish decides."""
        if job.task.backend not in {None, self.name}:
            return False
        return self._found is None or any(job.task.model.format.value in d.formats for d in self._usable())

    @property
    def trouble(self) -> str:
        """Why no device of it can be used, as far as it was looked; empty where one can, or where nobody has looked."""
        if self._found is None or self._usable():
            return ""
        return next((device.why for device in self._found), "no device found")

    def state(self) -> BackendState:
        """Describe this backend to the fleet; it is probed when a worker first starts, never before."""
        device = next(iter(self._usable() or self._found or (Device("", (), self.trouble or UNTRIED),)))
        bounds = [
            load.result().program.cost.cancel_bound_s for load in self._loads.values() if _succeeded(load)
        ]
        known = [bound for bound in bounds if bound is not None]
        return BackendState(
            name=self.name,
            device=device.name,
            formats=[name for name in device.formats if name in WIRE_FORMATS],
            power_w=self.settings.max_power_w,
            cancel_bound_ms=max(known) * 1000 if known and len(known) == len(bounds) else None,
            usable=bool(self._usable()),
            why=device.why,
        )

    def start(self) -> WorkerProcess:
        """Return the worker, started if there is none; raises GateShut when none may exist now."""
        if self._worker is not None:
            return self._worker
        loop = asyncio.get_running_loop()
        if not self.guard.may_exist or self.pause_s:
            raise GateShut
        worker = WorkerProcess.start(
            self.name, self.settings.options, limits=self._limits(), well=lambda: self.guard.watches
        )
        self._worker = worker
        self._asked = not self.guard.admit(worker.kill)
        self._reaping = loop.create_task(self._reap(worker), name=f"reap-{self.name}")
        if self._asked:
            worker.kill()
            raise GateShut
        self._probing = loop.create_task(worker.probe(), name=f"probe-{self.name}")
        self._probing.add_done_callback(self._probed)
        return worker

    async def ready(self) -> None:
        """Have a worker that has found a device.

        Raises GateShut, WorkerDied, or KernelError (1020) when no device is usable.
        """
        self.start()
        if self._probing is not None:
            await asyncio.shield(self._probing)
        if not self._usable():
            self._not_before_s = asyncio.get_running_loop().time() + PROBE_AGAIN_S
            self.kill()
            raise KernelError(Reason.BACKEND_UNUSABLE, f"backend {self.name}: {self.trouble}")

    def loaded(self, job: Job) -> Loaded | None:
        """Return the program for a job if it is in the worker."""
        load = self._loads.get(job.program)
        return load.result() if load is not None and _succeeded(load) else None

    @property
    def setup(self) -> str:
        """What decides what a run costs here: the backend's version, device and options. Call `ready` first."""
        options = json.dumps(self.settings.options, sort_keys=True, default=str)
        version = self._worker.version if self._worker is not None else ""
        return f"{version} {self._usable()[0].name} {options}"

    async def load(self, job: Job, path: Path, known: Cost | None = None) -> Loaded:
        """Return the program for a job, loaded once however many ask for it. Call `ready` first.

        With `known`, what an earlier load on this `setup` has measured, nothing is measured again.

        Raises GateShut, WorkerDied, or KernelError when the backend does not take the model.
        """
        worker, key, task = self.start(), job.program, job.task
        load = self._loads.get(key)
        if load is None:
            outputs = tuple(output.name for output in task.outputs)
            sha256, model_format = task.model.sha256, task.model.format.value
            model = Model(path, sha256, model_format, row_tensors(task), outputs, known)
            load = asyncio.get_running_loop().create_task(self._load(worker, model), name=f"load-{self.name}")
            self._loads[key] = load
            load.add_done_callback(lambda done: None if _succeeded(done) else self._forget(key, done))
        return await asyncio.shield(load)

    @contextlib.contextmanager
    def holding(self, job: Job) -> Iterator[None]:
        """Keep the program of a job, loaded or to be loaded: it makes room for no other."""
        key = job.program
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1
            if key in self._loads:
                self._loads[key] = self._loads.pop(key)

    def kill(self) -> None:
        """End the worker at once because we want it so."""
        if self._worker is not None:
            self._asked = True
            self._worker.kill()

    def worked(self) -> None:
        """Note a success: a later death starts with the shortest pause again."""
        self.deaths = 0

    @property
    def pause_s(self) -> float:
        """Seconds until a worker may be started again after one that died by itself."""
        return max(0.0, self._not_before_s - asyncio.get_running_loop().time())

    async def ended(self) -> bool:
        """Wait until the worker is gone; True when nobody had asked for it."""
        return self._reaping is not None and await asyncio.shield(self._reaping)

    async def close(self) -> None:
        """End the worker and wait until it is gone."""
        self.kill()
        await self.ended()

    def _limits(self) -> Limits:
        with contextlib.suppress(OSError):  # the model cache says it in its own words when it is asked
            self.models_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Limits(
            model_folders=(str(self.models_dir.absolute()),),
            memory_bytes=self.settings.max_memory_bytes,
            load_s=self.settings.max_load_s,
        )

    @property
    def _found(self) -> Sequence[Device] | None:
        """What the last probe found; None where nobody has looked, or found nothing and may look again."""
        return self.devices if self._usable() or self.pause_s else None

    def _usable(self) -> list[Device]:
        return [device for device in self.devices or () if not device.why]

    async def _load(self, worker: WorkerProcess, model: Model) -> Loaded:
        program = await worker.load(model, self._usable()[0].name)
        await self._make_room(worker, program)
        return Loaded(worker, program, model.sha256, self.setup)

    async def _make_room(self, worker: WorkerProcess, fresh: LoadedProgram) -> None:
        """Unload what was used least recently until the programs fit into half of what the worker may take."""
        limit_bytes = self.settings.max_memory_bytes // 2
        loaded = {key: load.result().program for key, load in self._loads.items() if _succeeded(load)}
        size = sum(program.cost.bytes_resident or 0 for program in (fresh, *loaded.values()))
        for key, program in loaded.items():
            if size > limit_bytes and not self._held[key]:
                del self._loads[key]
                size -= program.cost.bytes_resident or 0
                await worker.unload(program)

    def _forget(self, key: str, load: asyncio.Task[Loaded]) -> None:
        if self._loads.get(key) is load:
            del self._loads[key]

    def _probed(self, probing: asyncio.Task[Sequence[Device]]) -> None:
        if not probing.cancelled() and probing.exception() is None:
            self.devices = probing.result()

    async def _reap(self, worker: WorkerProcess) -> bool:
        reaped = await worker.wait_reaped()
        ours = reaped.returncode == -signal.SIGALRM  # this process stood still, and that was nobody's fault
        by_itself = self.guard.dismiss(worker.kill) and not self._asked and not ours
        calls = [call for call in (self._probing, *self._loads.values()) if call is not None]
        # Each has failed with WorkerDied, or had ended before.
        await asyncio.gather(*calls, return_exceptions=True)
        self._worker = self._probing = None
        self._loads.clear()
        if by_itself:
            pause_s = RESTART_PAUSES_S[min(self.deaths, len(RESTART_PAUSES_S) - 1)]
            self.deaths += 1
            self._not_before_s = asyncio.get_running_loop().time() + pause_s
            log.warning("worker of %s died by itself: %s; next start in %g s", self.name, reaped, pause_s)
        self.on_reaped(self, worker.kill, reaped, by_itself)
        return by_itself


def _succeeded(load: asyncio.Task[Loaded]) -> bool:
    return load.done() and not load.cancelled() and load.exception() is None
