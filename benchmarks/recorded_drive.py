"""The CAN bus of a recorded drive, played again and again: 250 frames a second, as the car sent them."""

import re
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from firmware_shims.clock import Clock, boottime_ns
from firmware_shims.socketcand_server import HOST, SocketcandServer

LOG: Final = Path(__file__).parents[2] / "shared/data/model3_drive.candump.log"
LINE: Final = re.compile(r"\((\d+\.\d+)\) \S+ ([0-9A-F]+)#([0-9A-F]*)")
"""candump -l (can-utils)."""


class RecordedDrive:
    """Sends the frames of `log` at their times, from the start again at its end, until `close`."""

    def __init__(self, log: Path = LOG, clock: Clock = boottime_ns) -> None:
        lines = [found for line in log.read_text().splitlines() if (found := LINE.match(line))]
        if len(lines) < 2:
            raise ValueError(f"{log} is no candump log: it should have lines such as (1.5) can0 118#0102")
        begun_s = float(lines[0][1])
        self._frames = [(float(line[1]) - begun_s, line[2], line[3]) for line in lines]
        self._clock = clock
        self._server = SocketcandServer(0, clock)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drive, name="recorded-drive", daemon=True)
        self._thread.start()

    @property
    def frames_per_s(self) -> float:
        """Their mean rate."""
        return (len(self._frames) - 1) / self._frames[-1][0]

    @property
    def options(self) -> dict[str, Any]:
        """`[signals.options]` for an agent that listens."""
        return {"interface": "socketcand", "host": HOST, "port": self._server.port, "channel": "can0"}

    def close(self) -> None:
        """Stop, and close the port."""
        self._stop.set()
        self._thread.join()
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drive(self) -> None:
        while not self._stop.is_set():
            begun_ns = self._clock()
            for at_s, frame_id, payload in self._frames:
                while (wait_s := at_s - (self._clock() - begun_ns) / 1e9) > 0 and not self._stop.is_set():
                    self._server.serve(wait_s)
                if self._stop.is_set():
                    return
                text = f"< frame {frame_id} {self._clock() / 1e9:.6f} {payload} >"
                self._server.broadcast(text.encode())
