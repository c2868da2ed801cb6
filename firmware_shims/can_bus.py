"""Opening a CAN interface for listening: one of python-can's, or socketcand."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from firmware_shims.socketcand import SocketcandBus


class Frame(Protocol):
    """What the shim reads of a frame; python-can's `Message` is one."""

    @property
    def arbitration_id(self) -> int: ...  # noqa: D102
    @property
    def data(self) -> bytes | bytearray: ...  # noqa: D102
    @property
    def is_extended_id(self) -> bool: ...  # noqa: D102
    @property
    def is_error_frame(self) -> bool: ...  # noqa: D102


class Bus(Protocol):
    """A bus as the shim sees it: without a way to send."""

    def recv(self, timeout: float) -> Frame | None:
        """The next frame; None when `timeout` seconds brought none, with 0 when everything has been read.

        OSError or EOFError when the interface is gone.
        """

    def shutdown(self) -> None:
        """Close the interface."""


OpenBus = Callable[[], Bus]
"""Opens the interface; OSError or EOFError when it is not there, to be tried again."""

SILENT: Mapping[str, Mapping[str, Any]] = {
    "socketcan": {"receive_own_messages": False},
    "kvaser": {"driver_mode": False},
    "seeedstudio": {"operation_mode": "silent"},
    "slcan": {"listen_only": True},
    "vector": {"listen_only": True},
    "nixnet": {"listen_only": True},
}
"""Options that keep an interface from even acknowledging frames, where python-can has one.

socketcan has none: `ip link set can0 type can ... listen-only on` does it.
"""

_KERNEL_FILTERS = frozenset({"socketcan"})
"""Interfaces that filter before Python sees a frame. Elsewhere python-can filters in Python, and then a `recv(0)`
that threw a frame away looks like a drained socket; the shim's own look-up is cheaper than that."""


class InterfaceError(ValueError):
    """Options that no retry will cure: one line with the option and what to do."""


def bus_opener(options: Mapping[str, Any], message_ids: Iterable[int]) -> OpenBus:
    """Return what opens the interface that `[signals.options]` describes. InterfaceError for bad options."""
    interface = options.get("interface")
    if interface == "socketcand":
        return _socketcand(options)
    try:
        import can  # noqa: PLC0415 - 13 MiB that only a source on an interface of python-can pays for
    except ImportError as error:
        raise InterfaceError("CAN interfaces need python-can: pip install 'parkwatt[can]'") from error
    if interface not in can.VALID_INTERFACES:
        known = ", ".join(sorted(can.VALID_INTERFACES))
        raise InterfaceError(f"options.interface is {interface!r}; python-can knows {known}")
    chosen = {**options, **SILENT.get(interface, {})}
    if interface in _KERNEL_FILTERS:
        chosen["can_filters"] = [_filter(message_id) for message_id in message_ids]

    def open_bus() -> Bus:
        try:
            return _PythonCan(can.Bus(ignore_config=True, **chosen), can.CanError)
        except can.CanError as error:
            raise OSError(f"{interface}: {error}") from error
        except (TypeError, ValueError) as error:
            raise InterfaceError(f"interface {interface} does not take its options: {error}") from error

    return open_bus


def _filter(message_id: int) -> dict[str, Any]:
    extended = message_id > 0x7FF
    return {
        "can_id": message_id,
        "can_mask": 0x1FFFFFFF if extended else 0x7FF,
        "extended": extended,
    }


def _socketcand(options: Mapping[str, Any]) -> OpenBus:
    try:
        host, port, channel = str(options["host"]), int(options["port"]), str(options["channel"])
    except KeyError as error:
        raise InterfaceError(
            f"options.{error.args[0]} is missing: socketcand needs host, port, channel"
        ) from error
    except (TypeError, ValueError) as error:
        raise InterfaceError(f"options.port is {options['port']!r}: a number from 1 to 65535") from error
    return lambda: SocketcandBus(host, port, channel)


class _PythonCan:
    """A python-can bus whose errors are OSErrors, so that nobody else has to import python-can."""

    def __init__(self, bus: Any, can_error: type[Exception]) -> None:
        self._bus = bus
        self._can_error = can_error

    def recv(self, timeout: float) -> Frame | None:
        try:
            frame: Frame | None = self._bus.recv(timeout)
        except self._can_error as error:
            raise OSError(str(error)) from error
        return frame

    def shutdown(self) -> None:
        with contextlib.suppress(OSError, self._can_error):  # nothing is left to close on one that went away
            self._bus.shutdown()
