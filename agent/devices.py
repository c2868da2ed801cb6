"""Which devices a backend finds on this machine, tried in a worker process of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from backends.kernel import Device, KernelError
from backends.limits import Limit, Limits
from backends.limits import described as described_limits
from backends.process import DEFAULT_LIMITS, WorkerDied, WorkerProcess
from backends.registry import UnknownBackend, known


@dataclass(frozen=True, slots=True)
class Probed:
    """What a backend found; `problem` says why it could not even be asked."""

    use: str
    devices: Sequence[Device] = ()
    limits: tuple[Limit, ...] = ()
    """Those of its worker."""
    problem: str = ""


async def probed(use: str, options: Mapping[str, Any], limits: Limits = DEFAULT_LIMITS) -> Probed:
    """The devices of backend `use`; a driver that crashes or hangs costs only its own process."""
    try:
        worker = WorkerProcess.start(use, options, limits=limits)
    except UnknownBackend as error:
        return Probed(use, problem=str(error))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        return Probed(use, problem=f"its options cannot be left out: {where}: {fault['msg']}")
    try:
        return Probed(use, await worker.probe(), worker.limits)
    except (KernelError, WorkerDied) as error:
        return Probed(use, problem=error.text)
    finally:
        await worker.stop()


async def probed_all() -> list[Probed]:
    """Every backend that is known here with its default options, one after the other."""
    return [await probed(use, {}) for use in known()]


def described(found: Sequence[Probed]) -> Iterator[str]:
    """The lines of `parkwatt backends`."""
    for backend in found:
        if not backend.devices:
            yield f"{backend.use}: not usable: {backend.problem or 'no device found'}"
        for device in backend.devices:
            state = f"not usable: {device.why}" if device.why else f"usable for {', '.join(device.formats)}"
            yield f"{backend.use} on {device.name}: {state}"
    limited: dict[tuple[Limit, ...], list[str]] = {}
    for backend in found:
        if backend.limits:
            limited.setdefault(backend.limits, []).append(backend.use)
    for limits, uses in limited.items():
        yield f"limits of the workers of {', '.join(uses)}: {described_limits(limits)}"
