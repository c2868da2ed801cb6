"""`parkwatt run`: the service as a process, with its signals, its service manager and its end."""

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Final

from agent import heap
from agent.notify import Notices
from agent.reload import follow
from agent.service import Service
from agent.settings import Settings, StoreSettings
from agent.store import Store
from agent.version import version
from backends.resident import give_freed_memory_back

STOP_S: Final = 1.8
"""From SIGTERM to the end of the process; two seconds are promised."""
LARGE_BYTES: Final = 16 * 1024**2

log = logging.getLogger(__name__)


async def serve(settings: Settings, config: Path) -> None:
    """Run the service until SIGTERM or SIGINT; SIGHUP has it read `config` again, where `settings` come from."""
    heap.one_for_all_threads()
    faulthandler.enable()  # a watchdog ends a process that hangs by SIGABRT: then it says where
    stop, reload_asked = asyncio.Event(), asyncio.Event()
    deadline = Deadline()

    def leave() -> None:
        stop.set()
        deadline.begin()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, leave)
    loop.add_signal_handler(signal.SIGHUP, reload_asked.set)
    with contextlib.closing(Notices.of(os.environ)) as notices:
        async with await _opened(settings.store) as store:
            deadline.store = store
            log.info("parkwatt %s starts with %s, boot %d", version(), config, store.boot)
            service = Service(settings, store, notices=notices)
            give_freed_memory_back()  # what was needed to get here: the settings' schema and bytecode of imports
            try:
                await service.run(
                    stop, beside={"reload": partial(follow, reload_asked, config, service, notices)}
                )
            except BaseException:
                deadline.failed = True
                raise
            finally:
                deadline.begin()


async def _opened(store: StoreSettings) -> Store:
    """A large store is checked for seconds, and the agent must be able to end meanwhile; a thread costs memory."""
    begin = partial(Store.open, store.path, max_bytes=store.max_bytes, ballast_bytes=store.ballast_bytes)
    large = store.path.exists() and store.path.stat().st_size > LARGE_BYTES
    return await asyncio.to_thread(begin) if large else begin()


class Deadline:
    """Ends the process `STOP_S` after `begin`, whatever still hangs: a name server, a driver, a disk.

    By then workers are dead and every commit that was answered is on disk. The exit status is 0, unless the service
    has `failed` or the `store` is in the middle of a commit.
    """

    def __init__(self) -> None:
        self.store: Store | None = None
        self.failed = False
        self._timer = threading.Timer(STOP_S, self._leave)
        self._timer.name = "deadline"
        self._timer.daemon = True

    def begin(self) -> None:
        """Let the time run; a second time nothing happens."""
        if not self._timer.is_alive():
            self._timer.start()

    def _leave(self) -> None:
        hanging = sorted(each.name for each in threading.enumerate() if each is not self._timer)
        log.warning("ended without waiting any longer for the threads %s", ", ".join(hanging))
        unfinished = self.store is not None and self.store.writer.busy_since_ns is not None
        os._exit(1 if unfinished or self.failed else 0)
