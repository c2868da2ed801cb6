"""Our own modules compiled, as pip and deploy/install.sh leave them.

In a checkout, or where PYTHONDONTWRITEBYTECODE is set, each start would compile what has changed since somebody could
write bytecode: half as long again for the agent, and a figure that depends on who ran what before.
"""

import compileall
from pathlib import Path
from typing import Final

PLACE: Final = Path(__file__).parent.parent
PACKAGES: Final = ("agent", "backends", "benchmarks", "firmware_shims", "fleet")


def as_installed(place: Path = PLACE) -> bool:
    """Compile what is not compiled yet; False where bytecode cannot be written, with a line for each file."""
    failed = [package for package in PACKAGES if not compileall.compile_dir(place / package, quiet=1)]
    return not failed
