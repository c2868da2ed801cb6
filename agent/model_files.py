"""The files of the model cache: which are there, which are on their way, and room for both.

Fetches work in threads and lanes on the loop, so everything here may be called from any of them. The lock is never
held over a call to the disk.
"""

import contextlib
import hashlib
import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agent.fetch.errors import CalledOff, Interrupted, NotFetched, TooLarge, Unwritable
from agent.fetch.landing import Landing

PART: Final = ".part"
SHA256: Final = re.compile("[0-9a-f]{64}")
LOOK_S: Final = 0.2
"""How often a fetch that waits for room looks whether it was called off."""


class NotCached(Exception):  # noqa: N818 - an answer, not an error
    """The model is not here, or not any more."""


class _Part(Landing):
    """A model on its way, with the room that it has. `off` belongs to the fetch that has it in hand."""

    def __init__(self, descriptor: int, path: Path, files: "ModelFiles", off: threading.Event) -> None:
        super().__init__(descriptor)
        self.path = path
        self.off = off
        self.room_bytes = 0
        self._files = files

    def expect(self, size: int | None) -> int:
        """Have room for it, and say how much."""
        if size is None:
            raise NotFetched(
                "no Content-Length is said, and room is made before a model's first byte: say one"
            )
        self._files.make_room(self, size)
        return size


class ModelFiles:
    """Files named by their SHA-256, of mode 0400, in at most `max_bytes`; the least recently used go first.

    What a fetch that was called off or cut has brought stays as long as there is room; a restart throws it away.
    """

    def __init__(self, folder: Path, max_bytes: int, largest_bytes: int) -> None:
        self._dir = folder
        self._max_bytes = max_bytes
        self._largest_bytes = min(largest_bytes, max_bytes)
        for part in folder.glob(f"*{PART}"):  # from an agent that was killed while it fetched
            part.unlink()
        self._sizes = {path.name: path.stat().st_size for path in _by_age(folder)}
        """Bytes by name, the least recently used first."""
        self._verified: set[str] = set()
        self._held: Counter[str] = Counter()
        self._in_hand: list[_Part] = []
        self._left: dict[str, _Part] = {}
        """What is left of fetches that ended early, by the hash that it will have."""
        self._changed = threading.Condition()

    def has(self, sha256: str) -> bool:
        """Whether the model is here, with the right bytes."""
        return sha256 in self._verified

    def resident(self) -> list[str]:
        """The hashes in the cache, least recently used first."""
        with self._changed:
            return list(self._sizes)

    @contextlib.contextmanager
    def held(self, sha256: str) -> Iterator[Path]:
        """The file, which makes room for no other while it is held; raises `NotCached`."""
        path = self._path(sha256)
        with self._changed:
            self._held[sha256] += 1
        try:
            if not self._use(path):
                raise NotCached(sha256)
            yield path
        finally:
            with self._changed:
                self._held -= Counter([sha256])
                self._changed.notify_all()

    def recognise(self, sha256: str) -> Path | None:
        """Return the file if it is there; one of an earlier run is hashed once, and removed if it has rotted."""
        with contextlib.suppress(NotCached), self.held(sha256) as path:
            return path
        path = self._path(sha256)
        try:
            with path.open("rb") as file:
                found, nbytes = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
            if found == sha256:
                os.utime(path)
                self._add(sha256, nbytes)
                return path
            path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Unwritable(error.strerror or str(error)) from error
        self._forget(sha256)
        return None

    @contextlib.contextmanager
    def arriving(self, sha256: str, off: threading.Event) -> Iterator[Landing]:
        """Where the model lands; it gets its name when the block ends well. Raises `Unwritable`."""
        part = self._taken_up(sha256, off)
        try:
            yield part
            self._keep(sha256, part)
        except BaseException as error:
            if isinstance(error, CalledOff | Interrupted) and part.version is not None:
                self._lay_aside(sha256, part)
            else:
                part.path.unlink(missing_ok=True)
            raise
        finally:
            with self._changed:
                self._in_hand.remove(part)
                self._changed.notify_all()

    def make_room(self, part: _Part, nbytes: int) -> None:
        """Give room to a model before its first byte comes, and wait for what others hold or have in hand.

        Raises `TooLarge`, or `CalledOff` where `part.off` is set meanwhile.
        """
        if nbytes > self._largest_bytes:
            raise TooLarge(
                f"model of {nbytes} bytes, the most is {self._largest_bytes}: raise models.max_bytes"
                " and models.cache_max_bytes"
            )
        with self._changed:
            part.room_bytes = 0
            while (victims := self._victims(nbytes)) is None:
                if part.off.is_set():
                    raise CalledOff
                self._changed.wait(LOOK_S)
            part.room_bytes = nbytes
        for path in victims:
            path.unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        """Where a model lies. No other name than a hash becomes a path here, whoever has checked it before."""
        if not SHA256.fullmatch(sha256):
            raise NotFetched(f"{sha256[:64]!r} is no SHA-256 in lower-case hex digits")
        return self._dir / sha256

    def _victims(self, nbytes: int) -> list[Path] | None:
        """Give up what is used least until so many bytes fit; None, and nothing is given up, where it is not enough."""
        parts = {*self._in_hand, *self._left.values()}
        used = sum(self._sizes.values()) + sum(part.room_bytes for part in parts)
        excess = used + nbytes - self._max_bytes
        spare = [(sha256, part.path, part.room_bytes) for sha256, part in self._left.items()]
        spare += [
            (sha256, self._path(sha256), n) for sha256, n in self._sizes.items() if not self._held[sha256]
        ]
        if excess > sum(freed for *_, freed in spare):
            return None
        victims: list[Path] = []
        for sha256, path, freed in spare:
            if excess <= 0:
                break
            excess -= freed
            victims.append(path)
            if path.suffix == PART:
                del self._left[sha256]
            else:
                self._forget(sha256)
        return victims

    def _taken_up(self, sha256: str, off: threading.Event) -> _Part:
        """Go on with what is left of an earlier fetch, or start a new one."""
        with self._changed:
            part = self._left.pop(sha256, None)
            if part is not None:
                part.off = off
                self._in_hand.append(part)
                return part
        try:
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(suffix=PART, dir=self._dir)
        except OSError as error:
            raise Unwritable(error.strerror or str(error)) from error
        part = _Part(descriptor, Path(name), self, off)
        with self._changed:
            self._in_hand.append(part)
        return part

    def _lay_aside(self, sha256: str, part: _Part) -> None:
        with self._changed:
            before = self._left.pop(sha256, None)
            self._left[sha256] = part
        if before is not None:
            before.path.unlink(missing_ok=True)

    def _keep(self, sha256: str, part: _Part) -> None:
        part.sync()
        try:
            part.path.chmod(0o400)
            part.path.rename(self._path(sha256))
        except OSError as error:
            raise Unwritable(error.strerror or str(error)) from error
        with self._changed:
            part.room_bytes = 0
            self._add(sha256, part.size)

    def _use(self, path: Path) -> bool:
        """Note that a file is used; False if it is not here."""
        nbytes = self._sizes.get(path.name)
        if nbytes is None or not self.has(path.name):
            return False
        if not path.exists():
            self._forget(path.name)
            return False
        os.utime(path)
        self._add(path.name, nbytes)
        return True

    def _add(self, sha256: str, nbytes: int) -> None:
        """Note a file as the one that was used last."""
        with self._changed:
            self._sizes.pop(sha256, None)
            self._sizes[sha256] = nbytes
            self._verified.add(sha256)

    def _forget(self, sha256: str) -> None:
        with self._changed:
            self._sizes.pop(sha256, None)
            self._verified.discard(sha256)


def _by_age(folder: Path) -> list[Path]:
    files = [path for path in folder.glob("[0-9a-f]*") if path.suffix != PART and path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_mtime_ns)
