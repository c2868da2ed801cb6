"""What an installation takes on disk: parkwatt's own packages, and what each extra adds to them."""

from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PARKWATT: Final = "parkwatt"
OURS: Final = ("agent", "backends", "firmware_shims", "fleet", "benchmarks")
EXTRAS: Final = ("cpu", "can", "kuksa", "gpio", "tflite", "fsd", "metrics")
"""What a car may be given; `nvidia` excludes `cpu`, so that both are never in one environment."""
MIB: Final = 1024**2


def closure(extras: Iterable[str] = ()) -> dict[str, metadata.Distribution]:
    """Everything that `parkwatt[extras]` needs here, by canonical name, without parkwatt itself.

    Raises PackageNotFoundError where an extra is not installed.
    """
    found: dict[str, metadata.Distribution] = {}
    asked = {(PARKWATT, "")} | {(PARKWATT, extra) for extra in extras}
    done: set[tuple[str, str]] = set()
    while asked:
        name, extra = asked.pop()
        done.add((name, extra))
        found[name] = found.get(name) or (ourselves() if name == PARKWATT else metadata.distribution(name))
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                asked |= {(needed, wanted) for wanted in ("", *requirement.extras)} - done
    del found[PARKWATT]
    return found


def ourselves() -> metadata.Distribution:
    """Parkwatt as it was installed: an egg-info folder beside the sources may be of any age."""
    for distribution in metadata.distributions(name=PARKWATT):
        if distribution.read_text("RECORD"):
            return distribution
    raise metadata.PackageNotFoundError(PARKWATT)


def size_bytes(distribution: metadata.Distribution) -> int:
    """The files of a distribution that are there, bytecode included."""
    places = (Path(str(distribution.locate_file(file))) for file in distribution.files or ())
    return sum(place.stat().st_size for place in places if place.is_file())


def own_bytes() -> int:
    """The sources of our packages, without the bytecode that an installation makes of them."""
    tree = Path(__file__).parent.parent
    files = (file for name in OURS for file in (tree / name).rglob("*") if "__pycache__" not in file.parts)
    return sum(file.stat().st_size for file in files if file.is_file())


def by_extra() -> Mapping[str, float | None]:
    """MiB of an installation without extras under "", and what each extra adds to that; None: it is not here."""
    base = closure()
    sizes: dict[str, float | None] = {"": (own_bytes() + sum(map(size_bytes, base.values()))) / MIB}
    for extra in EXTRAS:
        try:
            more = closure([extra])
        except metadata.PackageNotFoundError:
            sizes[extra] = None
        else:
            sizes[extra] = sum(size_bytes(more[name]) for name in more.keys() - base.keys()) / MIB
    return sizes


def described(sizes: Mapping[str, float | None]) -> Iterable[str]:
    """One line for each."""
    for extra, mib in sizes.items():
        what = f"the extra {extra} adds" if extra else "parkwatt without extras"
        yield f"installed size, {what}: " + ("not installed here" if mib is None else f"{mib:.0f} MiB")
