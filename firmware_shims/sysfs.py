"""Sensors in sysfs by name or label, never by the kernel's numbers: those change from one boot to the next.

    thermal:TYPE          thermal zones of that `type`
    hwmon:CHIP/LABEL      an input of a chip by its `name` and the input's `label`; hwmon:CHIP means all its inputs
    power_supply:NAME     a supply by its name
    ina3221:RAIL          a rail of a power monitor by its `label`

Sources: Documentation/ABI/testing/sysfs-class-{thermal,hwmon,power} and Documentation/hwmon/ina3221.rst of the
Linux kernel, for the units too: thermal and hwmon thousandths (power millionths), supplies millionths, and
tenths of a degree. A power that a chip only has as an average over its interval is taken as that.
"""

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final


class Quantity(enum.Enum):
    """What a sensor measures; the value is the word that VSS paths of it end in."""

    CELSIUS = "Temperature"
    VOLTS = "Voltage"
    WATTS = "Power"
    JOULES = "Energy"


_CREDIBLE: Final[Mapping[Quantity, tuple[float, float]]] = {
    Quantity.CELSIUS: (-60, 200),  # zones that are switched off say -256 or -274
    Quantity.VOLTS: (0, 1_000),
    Quantity.WATTS: (0, 100_000),
    Quantity.JOULES: (0, 2**64 / 1e6),  # counted since the start in 64 bits of microjoules
}
"""Outside of this a sensor is broken, whatever it says."""

_RAILS: Final = (1, 2, 3)
"""Channels of an INA3221; the numbers above carry shunt voltages and their sum."""
_NO_RAILS: Final = frozenset({"NC", "sum of shunt voltages"})

Found = Iterator[tuple[str, Path]]
"""Names of sensors with the file that holds the value."""


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor as the operator wrote it, for one quantity; ValueError when there is no such kind of sensor."""

    written: str
    quantity: Quantity

    def __post_init__(self) -> None:
        if self._kind not in {kind for kind, _ in _SENSORS} or not self._name:
            raise ValueError(
                f"{self.written!r} is no sensor: write thermal:TYPE, hwmon:CHIP/LABEL, power_supply:NAME"
                " or ina3221:RAIL"
            )
        if (self._kind, self.quantity) not in _SENSORS:
            raise ValueError(f"{self.written!r} measures no {self.quantity.value.lower()}")
        if self._kind == "ina3221" and self._name in _NO_RAILS:
            raise ValueError(f"{self.written!r} is no rail: nothing is connected to that channel")

    def read(self, root: Path) -> float | None:
        """The value in the quantity's unit; None while any of the sensors of that name does not answer.

        The hottest of several counts; of several voltages or powers none is the one that was meant.
        """
        find, value_in = _SENSORS[self._kind, self.quantity]
        answers = [value_in(file) for name, file in find(root) if self._means(name)]
        low, high = _CREDIBLE[self.quantity]
        known = [answer for answer in answers if answer is not None and low <= answer <= high]
        if not known or len(known) < len(answers):
            return None
        return max(known) if self.quantity is Quantity.CELSIUS or len(known) == 1 else None

    def others(self, root: Path) -> list[str]:
        """Every sensor of the same kind and quantity that this computer has, as one would write it."""
        find, _ = _SENSORS[self._kind, self.quantity]
        return sorted({f"{self._kind}:{name}" for name, _ in find(root)})

    def _means(self, name: str) -> bool:
        return name == self._name or name.startswith(f"{self._name}/")

    @property
    def _kind(self) -> str:
        return self.written.partition(":")[0]

    @property
    def _name(self) -> str:
        return self.written.partition(":")[2]


def _zones(root: Path) -> Found:
    for zone in (root / "class/thermal").glob("thermal_zone*"):
        yield _text(zone / "type") or "", zone / "temp"


def _supplies(file: str, root: Path) -> Found:
    for supply in (root / "class/power_supply").glob("*"):
        if (supply / file).exists():
            yield supply.name, supply / file


def _inputs(prefix: str, root: Path) -> Found:
    """`chip/label`, and `chip` alone for an input without a label."""
    for chip in (root / "class/hwmon").glob("hwmon*"):
        name = _text(chip / "name") or ""
        for file in _values(chip, prefix):
            label = _text(_beside(file, "label"))
            yield (f"{name}/{label}" if label else name), file


def _values(chip: Path, prefix: str) -> Iterator[Path]:
    """`power1_input`, and `power1_average` of a chip that has no other."""
    yield from chip.glob(f"{prefix}[0-9]*_input")
    for file in chip.glob(f"{prefix}[0-9]*_average"):
        if not _beside(file, "input").exists():
            yield file


def _rails(root: Path) -> Found:
    for chip in (root / "class/hwmon").glob("hwmon*"):
        if _text(chip / "name") == "ina3221":
            for channel in _RAILS:
                label = _text(chip / f"in{channel}_label")
                if label and label not in _NO_RAILS:
                    yield label, chip / f"in{channel}_input"


def _over(divisor: int) -> Callable[[Path], float | None]:
    def value_in(file: Path) -> float | None:
        number = _number(file)
        return None if number is None else number / divisor

    return value_in


def _unless_faulty(file: Path) -> float | None:
    """A hwmon temperature; a chip that has a fault flag sets it for an open or shorted sensor."""
    return None if _text(_beside(file, "fault")) not in (None, "0") else _over(1000)(file)


def _rail_w(file: Path) -> float | None:
    """Watts of an INA3221 channel, which has millivolts and milliamperes and no power of its own."""
    millivolts = _number(file)
    milliamperes = _number(file.with_name(file.name.replace("in", "curr", 1)))
    return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1e6


def _beside(file: Path, what: str) -> Path:
    """`temp1_label` beside `temp1_input`."""
    return file.with_name(f"{file.name.partition('_')[0]}_{what}")


def _text(file: Path) -> str | None:
    try:
        return file.read_bytes().decode(errors="replace").strip()
    except OSError:
        return None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_bytes())
    except (OSError, ValueError):
        return None


_SENSORS: Final[
    Mapping[tuple[str, Quantity], tuple[Callable[[Path], Found], Callable[[Path], float | None]]]
] = {
    ("thermal", Quantity.CELSIUS): (_zones, _over(1000)),
    ("hwmon", Quantity.CELSIUS): (partial(_inputs, "temp"), _unless_faulty),
    ("hwmon", Quantity.VOLTS): (partial(_inputs, "in"), _over(1000)),
    ("hwmon", Quantity.WATTS): (partial(_inputs, "power"), _over(1_000_000)),
    ("hwmon", Quantity.JOULES): (partial(_inputs, "energy"), _over(1_000_000)),
    ("power_supply", Quantity.CELSIUS): (partial(_supplies, "temp"), _over(10)),
    ("power_supply", Quantity.VOLTS): (partial(_supplies, "voltage_now"), _over(1_000_000)),
    ("power_supply", Quantity.WATTS): (partial(_supplies, "power_now"), _over(1_000_000)),
    ("ina3221", Quantity.VOLTS): (_rails, _over(1000)),
    ("ina3221", Quantity.WATTS): (_rails, _rail_w),
}
"""How a sensor is found and read, by its kind and what it measures."""
