"""A driver's shared library: loaded, of a version that goes with ours, and complete."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from firmware_shims.fsd.c_abi.layout import FUNCTIONS, MAJOR, MINOR
from firmware_shims.fsd.interface import Code, FsdError

PREFIX: Final = "fsd_npu_"


class Library:
    """The functions of a library, by their names without `fsd_npu_`."""

    def __init__(self, path: Path) -> None:
        """Load it; FsdError where it is no library, no driver, of another major version, or incomplete.

        The first time, code of the library runs: the path is to be trusted.
        """
        self.path = path.absolute()  # or the linker would search its own folders for a bare name
        try:
            self._loaded = ctypes.CDLL(str(self.path))
        except OSError as error:
            raise FsdError(Code.NO_DEVICE, "open", f"the driver cannot be loaded: {error}") from error
        if not hasattr(self._loaded, f"{PREFIX}abi_version"):
            raise FsdError(
                Code.UNSUPPORTED,
                "open",
                f"{self.path} has no {PREFIX}abi_version: it is no driver of an FSD NPU",
            )
        version = self._typed("abi_version")()
        self.major, self.minor = version >> 16, version & 0xFFFF
        if self.major != MAJOR:
            raise FsdError(
                Code.UNSUPPORTED,
                "open",
                f"{self.path} speaks ABI {self.major}.{self.minor}, not {MAJOR}.{MINOR}: take a driver for {MAJOR}.x",
            )
        self._functions = self._all_of_its_version()

    def __getitem__(self, function: str) -> Callable[..., Any]:
        """The function; FsdError UNSUPPORTED where it is newer than the library."""
        try:
            return self._functions[function]
        except KeyError:
            since = f"{MAJOR}.{FUNCTIONS[function].since}"
            text = f"the driver speaks ABI {self.major}.{self.minor}, and this came with {since}"
            raise FsdError(Code.UNSUPPORTED, function, text) from None

    def _all_of_its_version(self) -> dict[str, Callable[..., Any]]:
        """What is newer than the version that the library claims may be unfinished, and is not looked for."""
        names = [name for name, function in FUNCTIONS.items() if function.since <= self.minor]
        absent = [f"{PREFIX}{name}" for name in names if not hasattr(self._loaded, f"{PREFIX}{name}")]
        if absent:
            text = f"{self.path} claims ABI {self.major}.{self.minor} and does not export {', '.join(absent)}"
            raise FsdError(Code.UNSUPPORTED, "open", text)
        return {name: self._typed(name) for name in names}

    def _typed(self, name: str) -> Callable[..., Any]:
        function = self._loaded[f"{PREFIX}{name}"]  # an object of its own each time, unlike an attribute
        function.argtypes, function.restype = FUNCTIONS[name].arguments, FUNCTIONS[name].result
        return function
