"""`parkwatt run` as a child process: the service as the vehicle OS starts it, kills it and stops it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from wire_fleet import WITHIN_S

from agent.control import NoAgentAnswersError, ask
from agent.settings import load

PARKWATT_RUN = ("-m", "agent", "run", "--log-format", "text", "--config")


class AgentProcess:
    """The process and its notify socket."""

    def __init__(self, process: asyncio.subprocess.Process, notified: socket.socket) -> None:
        self.process = process
        self._notified = notified

    async def until_ready(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(WITHIN_S):
            assert await loop.sock_recv(self._notified, 100) == b"READY=1"

    @property
    def workers(self) -> list[int]:
        """Living child processes, zombies not counted."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in found if " Z " not in Path(f"/proc/{pid}/stat").read_text()]

    async def until_no_worker(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.workers:
                await asyncio.sleep(0.002)

    @property
    def resident_bytes(self) -> int:
        """Its memory (statm in proc(5))."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    async def until_ended(self) -> int:
        """Wait for an end of its own; its exit status."""
        return await asyncio.wait_for(self.process.wait(), WITHIN_S)

    async def crash(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.until_ended()


async def until_nothing_owed(config: Path) -> None:
    """Wait until an agent runs that has no open task and no result that has not been settled."""
    control = load(config).control.socket
    said: dict[str, int] = {}
    try:
        async with asyncio.timeout(WITHIN_S):
            while True:
                with contextlib.suppress(NoAgentAnswersError):
                    said = (await asyncio.to_thread(ask, control, {"cmd": "status"}))["status"]["store"]
                    if not said["open_tasks"] and not said["unsettled_results"]:
                        return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"after {WITHIN_S:g} s it still owes {said}") from None


@asynccontextmanager
async def running_agent(
    config: Path, program: Sequence[str] = PARKWATT_RUN, *, name: str = "agent"
) -> AsyncIterator[AgentProcess]:
    """The agent of `config`, from READY=1 on; killed at the end if the test has not stopped it."""
    address = config.with_name(f"{name}.notify")
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(address))
        notified.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            sys.executable, *program, str(config), env={**os.environ, "NOTIFY_SOCKET": str(address)}
        )
        try:
            agent = AgentProcess(process, notified)
            await agent.until_ready()
            yield agent
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
