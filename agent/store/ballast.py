"""A file of real blocks beside the store that is given back when the disk is full.

On a full disk even DELETE fails, because the write-ahead log has to grow first. With the room of the ballast what was
settled can be deleted, and what is owed committed.
"""

import logging
import os
import threading
from pathlib import Path

from agent.store.errors import is_full

log = logging.getLogger(__name__)


class Ballast:
    """`size_bytes` at `path`, 0 for none. May be laid in one thread and given back in another."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._path = path
        self._lock = threading.Lock()
        self._lies = False
        self._complained = False

    @property
    def missing(self) -> bool:
        """Whether there should be one and is not: the disk is full, or was and has not much room yet."""
        return self.size_bytes > 0 and not self._lies

    @property
    def wanted_bytes(self) -> int:
        """So much has to be free before it is laid down: twice its size, so that it does not come and go."""
        return 2 * self.size_bytes

    @property
    def why_missing(self) -> str:
        """For people, and for the fleet."""
        return f"this car's disk has less than {self.wanted_bytes} bytes left"

    def lay(self) -> bool:
        """Lay it down where the disk has room; whether it lies now.

        Raises OSError for what is not a lack of room.
        """
        with self._lock:
            if self.size_bytes == 0:
                self._path.unlink(missing_ok=True)
            elif not self._lies:
                self._lies = self._kept() or (self._free_bytes() >= self.wanted_bytes and self._allocated())
                if not self._lies and not self._complained:
                    self._complained = True
                    log.warning("no new tasks: %s", self.why_missing)
            return self._lies

    def give_back(self) -> bool:
        """Free its blocks if the disk has less left than they are; whether there is more room now."""
        with self._lock:
            if not self._path.exists() or self._free_bytes() >= self.size_bytes:
                return False
            self._path.unlink()
            self._lies = False
            self._complained = True
            log.warning(
                "the disk is full: the ballast of the store is given back; no new tasks: %s", self.why_missing
            )
            return True

    def _kept(self) -> bool:
        """Whether an earlier start has left it as it should be."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        return found.st_size == self.size_bytes and found.st_blocks * 512 >= self.size_bytes

    def _allocated(self) -> bool:
        self._path.unlink(missing_ok=True)
        try:
            with self._path.open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, self.size_bytes)
                os.fsync(file.fileno())
        except OSError as error:
            self._path.unlink(missing_ok=True)
            if is_full(error):
                return False
            raise
        return True

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize
