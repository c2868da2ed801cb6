"""sd_notify(3) and sd_watchdog_enabled(3): what the service manager is told, in its own words."""

import logging
import os
import socket
from collections.abc import MutableMapping
from typing import Final, Self

from agent.protocol.reasons import printable

ADDRESS: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = "WATCHDOG_USEC"
WATCHDOG_FOR: Final = "WATCHDOG_PID"
STATUS_MAX_CHARS: Final = 500
REMARK_MAX_CHARS: Final = 300

log = logging.getLogger(__name__)


class Notices:
    """Tells the service manager at `address`; with an empty one there is nobody to tell.

    It never waits: what the manager cannot take now is said again with the next word. `watchdog_s`: the manager ends
    this process unless it hears `alive` at least so often; None where it does not.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self.watchdog_s = watchdog_s
        self._address = "\0" + address[1:] if address.startswith("@") else address  # @ is an abstract socket
        self._owed: dict[str, str] = {}
        self._status = ""
        self._remark = ""
        self._channel: socket.socket | None = None
        if address.startswith(("/", "@")):
            self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        elif address:
            log.warning(
                "%s = %r: nobody is told, only a path or an @abstract name is known", ADDRESS, address
            )

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Self:
        """What the manager left in the environment, taken out of it: it is not for our workers."""
        address, period, pid = (environ.pop(name, "") for name in (ADDRESS, WATCHDOG, WATCHDOG_FOR))
        watched = period.isdecimal() and int(period) > 0 and pid in {"", str(os.getpid())}
        return cls(address, int(period) / 1e6 if watched else None)

    def ready(self) -> None:
        """The service has started, or goes on after `reloading`."""
        self._tell("READY", "1")

    def reloading(self, monotonic_ns: int) -> None:
        """The configuration is being read again; the stamp, of CLOCK_MONOTONIC, is what Type=notify-reload asks for."""
        self._owed["RELOADING"] = "1"
        self._tell("MONOTONIC_USEC", str(monotonic_ns // 1000))

    def stopping(self) -> None:
        """The service is on its way to its end."""
        self._tell("STOPPING", "1")

    def alive(self) -> None:
        """Feed the watchdog; what cannot be said now counts as not said."""
        self._tell("WATCHDOG", "1")
        self._owed.pop("WATCHDOG", None)

    def status(self, text: str) -> None:
        """One line for people, told when it changes."""
        if text != self._status:
            self._status = text
            self._tell_status()

    def remark(self, text: str) -> None:
        """Something that stands behind every status from now on; empty takes it away."""
        if text != self._remark:
            self._remark = text
            self._tell_status()

    def close(self) -> None:
        """Say nothing more."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _tell_status(self) -> None:
        remark = f"; {printable(self._remark, REMARK_MAX_CHARS)}" if self._remark else ""
        self._tell("STATUS", printable(self._status + remark, STATUS_MAX_CHARS))

    def _tell(self, name: str, value: str) -> None:
        """Of READY, RELOADING and STOPPING in one datagram the last one holds."""
        if self._channel is None:
            return
        self._owed.pop(name, None)
        self._owed[name] = value
        words = "\n".join(f"{owed}={value}" for owed, value in self._owed.items())
        try:
            self._channel.sendto(words.encode(), self._address)
        except OSError as error:
            log.debug("the service manager was not told: %s", error)
        else:
            self._owed.clear()
