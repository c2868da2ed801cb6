"""Files that hold a secret: nobody but their owner may use them."""

import stat
from pathlib import Path


def exposure(path: Path) -> str | None:
    """What is wrong with the permissions, and how to mend it; None if nothing is. Raises OSError."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"mode {mode:04o} lets others use the secret in it: chmod 0600 {path}" if mode & 0o077 else None
