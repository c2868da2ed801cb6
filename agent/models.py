"""The model cache: files named by the SHA-256 of their bytes, copied from the source and checked before use."""

import asyncio
import hashlib
import os
import stat
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

from agent.protocol.reasons import Reason

CHUNK_BYTES: Final = 1 << 20
PART: Final = ".part"


def unsupported(source: str) -> str:
    """Why models cannot be taken from `source`; empty when they can."""
    if urlsplit(source).scheme == "file":
        return ""
    return f"models.source {source!r}: https is not supported yet; give a file:/// folder"


class ModelUnavailableError(Exception):
    """A model that cannot be given to a worker, with the wire's reason."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class ModelCache:
    """Models from `{source}/{sha256}` in at most `max_bytes` of `cache_dir`; the least recently used go first.

    A cached file is a copy of mode 0400: neither a hard link nor a later change of the source reaches it.
    """

    def __init__(self, source: str, cache_dir: Path, max_bytes: int) -> None:
        self._source = source
        self._dir = cache_dir
        self._max_bytes = max_bytes
        self._verified: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        for part in cache_dir.glob(f"*{PART}"):  # from an agent that was killed while it copied
            part.unlink()

    async def fetch(self, sha256: str) -> Path:
        """The cached file, copied from the source first if need be; call it right before the file is opened.

        `sha256` is 64 lower-case hex digits, as the wire contract has checked. Raises `ModelUnavailableError`
        with 130 (the source does not have it), 131 (other bytes), 101 (larger than the cache) or 1031 (the
        cache cannot be written).
        """
        abandoned = threading.Event()
        async with self._one_at_a_time:
            try:
                return await asyncio.to_thread(self._provide, sha256, abandoned)
            finally:
                abandoned.set()  # a thread that nobody waits for any more ends with its present chunk

    def resident(self) -> list[str]:
        """The hashes in the cache, least recently used first."""
        return [path.name for path in self._by_age()]

    def _provide(self, sha256: str, abandoned: threading.Event) -> Path:
        path = self._dir / sha256
        if self._cached(path):
            os.utime(path)
            return path
        with _open_source(self._source, sha256) as source:
            self._stage(source, path, abandoned)
        self._verified.add(sha256)
        return path

    def _cached(self, path: Path) -> bool:
        """Whether the file is there with the right bytes; those of an earlier run are hashed again once."""
        if not path.exists():
            return False
        if path.name not in self._verified:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != path.name:
                    path.unlink()
                    return False
            self._verified.add(path.name)
        return True

    def _stage(self, source: BinaryIO, path: Path, abandoned: threading.Event) -> None:
        """Copy while hashing into a temporary file; only a file with the right hash gets the name."""
        size = os.fstat(source.fileno()).st_size
        if size > self._max_bytes:
            raise ModelUnavailableError(
                Reason.TOO_LARGE,
                f"model of {size} bytes, cache of {self._max_bytes} bytes: raise models.cache_max_bytes",
            )
        try:
            self._dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_room(size)
            descriptor, name = tempfile.mkstemp(suffix=PART, dir=self._dir)
        except OSError as error:
            raise self._unwritable(error) from error
        part = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as target:
                digest = self._copy(source, target, size, abandoned)
            if digest != path.name:
                raise ModelUnavailableError(
                    Reason.MODEL_HASH, f"the source's bytes have SHA-256 {digest}, wanted {path.name}"
                )
            part.chmod(0o400)
            part.rename(path)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            part.unlink(missing_ok=True)

    def _copy(self, source: BinaryIO, target: BinaryIO, size: int, abandoned: threading.Event) -> str:
        """Copy `size` bytes to the disk and return their SHA-256."""
        digest = hashlib.sha256()
        while size and not abandoned.is_set():
            chunk = _read(source, min(size, CHUNK_BYTES))
            if not chunk:
                break
            digest.update(chunk)
            target.write(chunk)
            size -= len(chunk)
        if abandoned.is_set():
            raise ModelUnavailableError(Reason.CANCELLED, "nobody waits for this model any more")
        target.flush()
        os.fsync(target.fileno())  # a power cut must not leave a short file under a trusted name
        return digest.hexdigest()

    def _make_room(self, size: int) -> None:
        """Remove the least recently used until `size` more bytes fit."""
        sizes = {path: path.stat().st_size for path in self._by_age()}
        excess = sum(sizes.values()) + size - self._max_bytes
        for path, freed in sizes.items():
            if excess <= 0:
                break
            path.unlink()
            self._verified.discard(path.name)
            excess -= freed

    def _by_age(self) -> list[Path]:
        files = [path for path in self._dir.glob("[0-9a-f]*") if path.suffix != PART]
        return sorted(files, key=lambda path: path.stat().st_mtime_ns)

    def _unwritable(self, error: OSError) -> ModelUnavailableError:
        text = f"the model cache {self._dir} cannot be written ({error.strerror}): see models.cache_dir"
        return ModelUnavailableError(Reason.STORE_FULL, text)


def _open_source(source: str, sha256: str) -> BinaryIO:
    if why := unsupported(source):
        raise ModelUnavailableError(Reason.MODEL_NOT_FOUND, why)
    path = Path(unquote(urlsplit(source).path)) / sha256
    try:
        # Opening a FIFO of that name without O_NONBLOCK would wait for ever.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise ModelUnavailableError(Reason.MODEL_NOT_FOUND, f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ModelUnavailableError(Reason.MODEL_NOT_FOUND, f"{path}: not a regular file")
    return file


def _read(source: BinaryIO, size: int) -> bytes:
    try:
        return source.read(size)
    except OSError as error:
        raise ModelUnavailableError(Reason.MODEL_NOT_FOUND, f"reading the model: {error.strerror}") from error
