"""Which devices a backend finds on this machine, tried in a worker process of its own."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from backends.kernel import Device, KernelError
from backends.process import WorkerDied, WorkerProcess
from backends.registry import UnknownBackend, known

PROBE_S: Final = 60.0
"""A first import of a large runtime from flash takes tens of seconds; longer means that it hangs."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What a backend found; `problem` says why it could not even be asked."""

    use: str
    devices: Sequence[Device] = ()
    problem: str = ""


async def probed(use: str, options: Mapping[str, Any]) -> Probed:
    """The devices of backend `use`; a driver that crashes or hangs costs only its own process."""
    try:
        worker = WorkerProcess.start(use, options)
    except UnknownBackend as error:
        return Probed(use, problem=str(error))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        return Probed(use, problem=f"its options cannot be left out: {where}: {fault['msg']}")
    try:
        async with asyncio.timeout(PROBE_S):
            return Probed(use, await worker.probe())
    except TimeoutError:
        return Probed(use, problem=f"no answer within {PROBE_S:g} s while it tried its devices")
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
