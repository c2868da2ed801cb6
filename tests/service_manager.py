"""A service manager for tests: it starts the command of a real unit file as systemd does, and listens to it."""

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stalls import stalls
from wire_fleet import WITHIN_S

DEPLOY = Path(__file__).parent.parent / "deploy"
UNIT = DEPLOY / "parkwatt.service"
DROP_INS = DEPLOY / "parkwatt.service.d"
CONFIG = "/etc/parkwatt/agent.toml"
DATAGRAM_BYTES = 4096
STOP_MOST_S = 4.0
"""Two seconds are promised; a test machine may be busy, beyond the stalls that are seen."""
HANGING = os.pathsep.join(
    filter(None, (str(Path(__file__).parent / "hanging"), os.environ.get("PYTHONPATH")))
)
"""As PYTHONPATH, beside $HANG, it has a part of the service hang: see hanging/sitecustomize.py."""
AS_SYSTEMD_DOES = ("/bin/sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh")
"""The number of a process is known only once it is there."""


def settings_of(unit: Path, section: str = "Service") -> dict[str, list[str]]:
    """Every value of each key in a section (systemd.syntax(7)), in their order."""
    found: dict[str, list[str]] = {}
    at = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            at = line.strip("[]")
        elif line and not line.startswith(("#", ";")) and at == section:
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def command(config: Path) -> list[str]:
    """`ExecStart` of the unit, with the paths of this machine in it."""
    (started,) = settings_of(UNIT)["ExecStart"]
    program, *arguments = shlex.split(started)
    assert program.endswith("/bin/parkwatt")
    assert CONFIG in arguments
    return [
        sys.executable,
        "-m",
        "agent",
        *(str(config) if argument == CONFIG else argument for argument in arguments),
    ]


@dataclass
class Started:
    """The service as its manager sees it. `words`: what it said, an assignment each, with the loop's time."""

    process: asyncio.subprocess.Process
    log: Path
    words: list[tuple[float, str]] = field(default_factory=list)
    datagrams: list[str] = field(default_factory=list)
    _behind: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, notices: socket.socket) -> None:
        """Take what has come."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.datagrams.append(notices.recv(DATAGRAM_BYTES).decode())
                now_s = asyncio.get_running_loop().time()
                self.words += [(now_s, word) for word in self.datagrams[-1].split("\n")]
                self._news.set()

    @property
    def status(self) -> str:
        """The newest status line."""
        said = [word for _, word in self.words if word.startswith("STATUS=")]
        return said[-1].removeprefix("STATUS=") if said else ""

    def count(self, word: str) -> int:
        return sum(said == word for _, said in self.words)

    async def until(self, holds: Callable[[], object], what: str) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            said = [word for _, word in self.words[-8:]]
            raise AssertionError(f"not within {WITHIN_S:g} s: {what}; it said {said}") from None

    async def until_said(self, word: str, times: int = 1) -> None:
        await self.until(lambda: self.count(word) >= times, f"{word}, {times} times")

    async def until_logged(self, words: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            while words not in self.log.read_text():
                await asyncio.sleep(0.02)

    async def until_status(self, status: str) -> None:
        """Wait until it says so, after the last one that was waited for. It may have gone on since."""
        word = f"STATUS={status}"
        await self.until(lambda: word in self._said(), f"status {status!r}")
        self._behind += self._said().index(word) + 1

    def _said(self) -> list[str]:
        return [word for _, word in self.words[self._behind :]]

    async def until_unfed_for(self, seconds: float) -> None:
        """Wait until the watchdog was not fed for so long: then systemd would end the service."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                fed = self.count("WATCHDOG=1")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        while self.count("WATCHDOG=1") == fed:
                            self._news.clear()
                            await self._news.wait()
                if self.count("WATCHDOG=1") == fed:
                    return

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; its exit status."""
        return await asyncio.wait_for(self.process.wait(), WITHIN_S)

    async def stop(self) -> tuple[int, float]:
        """The exit status after SIGTERM, and the seconds until then, without those in which the machine stood."""
        loop = asyncio.get_running_loop()
        with stalls() as seen:
            began_s = loop.time()
            self.signal(signal.SIGTERM)
            return await self.ended(), loop.time() - began_s - seen.lost_s

    async def stops_cleanly(self) -> None:
        """SIGTERM ends it in time, with status 0."""
        status, took_s = await self.stop()
        assert status == 0
        assert took_s < STOP_MOST_S

    @property
    def workers(self) -> list[int]:
        """Living child processes, zombies not counted."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in found if " Z " not in Path(f"/proc/{pid}/stat").read_text()]


@asynccontextmanager
async def systemd_starts(
    config: Path, *, watchdog_s: float | None = None, under: Sequence[str] = (), **environ: str
) -> AsyncIterator[Started]:
    """The unit's own command over `config`, killed at the end if the test has not ended it. Its log is a file.

    `under`: a program that becomes it, such as `unshare --net`.
    """
    address, log = config.with_name("notify.sock"), config.with_name("agent.log")
    address.unlink(missing_ok=True)
    given: Mapping[str, str] = {"NOTIFY_SOCKET": str(address)}
    if watchdog_s is not None:
        given = {**given, "WATCHDOG_USEC": str(round(watchdog_s * 1e6))}
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, log.open("wb") as written:
        notices.bind(str(address))
        notices.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            *under, *AS_SYSTEMD_DOES, *command(config), env={**os.environ, **given, **environ}, stderr=written
        )
        service = Started(process, log)
        loop.add_reader(notices, service.hear, notices)
        try:
            yield service
        finally:
            loop.remove_reader(notices)
            if process.returncode is None:
                process.kill()
                await process.wait()
