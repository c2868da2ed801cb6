"""Which run a worker is in, and how it is given up: cancels come by a socket of their own, for a thread of its own."""

import os
import socket
import threading
from typing import Final

import msgspec

from backends import wire
from backends.kernel import Cancelled, Program

CANCEL_AGAIN_S: Final = 0.005


class UnderWay:
    """Which run the main thread is in, and which ones the supervisor no longer wants.

    Run ids grow. A cancel may overtake its run, since it comes by another socket.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._program: Program | None = None
        self._id = 0
        self._unwanted: set[int] = set()

    def begin(self, run_id: int, program: Program) -> None:
        """Enter a run, or raise `Cancelled` when it was given up before."""
        with self._lock:
            self._id = run_id
            unwanted = run_id in self._unwanted
            self._unwanted = {other for other in self._unwanted if other >= run_id}
            if unwanted:
                raise Cancelled
            self._program = program

    def end(self) -> None:
        """Leave the run."""
        with self._lock:
            self._program = None

    def give_up(self, run_id: int) -> None:
        """Note that a run is not wanted any more; one that is over is forgotten."""
        with self._lock:
            if run_id >= self._id:
                self._unwanted.add(run_id)

    def cancel_unwanted(self) -> bool:
        """Cancel the run under way if it is not wanted; True when it was, and should be asked again.

        A cancel that comes a moment before `Program.run` has begun does nothing, so one is not enough.
        """
        with self._lock:
            if self._program is None or self._id not in self._unwanted:
                return False
            self._program.cancel()
            return True


def listen_for_cancels(cancels: socket.socket, under_way: UnderWay) -> None:
    """Pass cancels on; when the supervisor's end is gone, so is the process, whatever it is doing."""
    decode = msgspec.msgpack.Decoder(wire.Cancel).decode
    while True:
        cancels.settimeout(CANCEL_AGAIN_S if under_way.cancel_unwanted() else None)
        try:
            data = cancels.recv(wire.MESSAGE_BYTES)
        except TimeoutError:
            continue
        if not data:
            os._exit(os.EX_OK)
        under_way.give_up(decode(data).id)
