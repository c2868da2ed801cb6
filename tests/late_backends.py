"""A backend whose device is plugged in after the agent has started; workers find this module through PYTHONPATH."""

import os
from collections.abc import Sequence
from pathlib import Path

from backends.kernel import Device
from backends.null import Null

THERE = "LATE_DEVICE"
"""The environment says which file stands for the device."""


class ComesLate(Null):
    def probe(self) -> Sequence[Device]:
        return super().probe() if Path(os.environ[THERE]).exists() else []


class DriverComesLate(Null):
    """The device is seen at once."""

    def probe(self) -> Sequence[Device]:
        why = "" if Path(os.environ[THERE]).exists() else "its driver is not loaded: load it"
        return [Device(device.name, device.formats, why) for device in super().probe()]
