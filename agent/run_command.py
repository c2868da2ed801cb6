"""`parkwatt run`. It is a command of the command line, and can be had without it.

The process lives for weeks beside a driver's software: without the command line's library it is 1.3 MiB smaller and
ready 40 ms sooner.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.refusal import FAILED, fail, loaded

if TYPE_CHECKING:
    from agent.logs import LogFormat


def plain(arguments: Sequence[str]) -> Path | None:
    """The file of `run --config FILE`, as a service manager says it; None for anything else."""
    match arguments:
        case ["run", "--config", file]:
            return Path(file)
        case _:
            return None


def run(config: Path, log_format: "LogFormat | None" = None) -> None:
    """Run the service until SIGTERM or SIGINT; ends in SystemExit where it cannot."""
    for number in (signal.SIGTERM, signal.SIGINT):  # until the service has handlers of its own
        signal.signal(number, _leave)
    settings = loaded(config)
    import asyncio  # noqa: PLC0415 - other commands go without these, and so does a wrong configuration

    from agent import logs  # noqa: PLC0415
    from agent.control_socket import ControlSocketTakenError  # noqa: PLC0415
    from agent.protocol.keys import KeyFileError  # noqa: PLC0415
    from agent.serve import serve  # noqa: PLC0415
    from agent.store import StoreFailed, StoreUnusable  # noqa: PLC0415

    log = settings.log
    logs.configure(log_format or log.format, log.level.upper(), vehicle=settings.vehicle.id)
    try:
        asyncio.run(serve(settings, config))
    except* (StoreUnusable, StoreFailed, ControlSocketTakenError, KeyFileError, OSError) as refused:
        fail(FAILED, *_texts(refused))


def _leave(*_: object) -> None:
    """End at once: nothing is open yet. An exception would come in the middle of an import, and some make it another."""
    os._exit(os.EX_OK)


def _texts(group: BaseExceptionGroup[Exception]) -> Iterator[str]:
    """One line for each exception in the group."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _texts(error)
        elif isinstance(error, OSError) and error.filename:
            yield f"{error.filename}: {error.strerror}"
        else:
            yield " ".join(str(error).splitlines())
