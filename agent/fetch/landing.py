"""Where a body arrives: an open file that hashes what it takes."""

import abc
import hashlib
import os
import weakref

from agent.fetch.errors import NotFetched, Unwritable


class Landing(abc.ABC):
    """Takes a body in pieces, and goes on after a break from where it was.

    It owns the descriptor, and closes it when nobody holds the landing any more: the last one may be a thread that was
    called off.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.nbytes = 0
        self.size = 0
        self._version: str | None = None
        self._digest = hashlib.sha256()
        weakref.finalize(self, os.close, descriptor)

    @abc.abstractmethod
    def expect(self, size: int | None) -> int:
        """Judge the size that a body is said to have, None where nothing is said; returns the one that holds.

        Called before the first byte. May make room for so many, and raises a `FetchError` for a body that will not do.
        """

    @property
    def version(self) -> str | None:
        """A strong ETag or a date that names what the bytes are of; None where there is nothing to go on from."""
        return self._version if self.nbytes else None

    def begin(self, size: int | None, version: str | None) -> None:
        """Start a body, of the first byte on; what was there of another is forgotten."""
        self.forget()
        self.size = self.expect(size)
        self._version = version

    def forget(self) -> None:
        """Forget what has arrived."""
        self.nbytes = 0
        self._digest = hashlib.sha256()
        try:
            os.ftruncate(self.descriptor, 0)
        except OSError as error:
            raise _unwritable(error) from error

    def take(self, chunk: bytes) -> None:
        """Write a piece; raises `NotFetched` for what is more than the size, `Unwritable` for a disk that is full."""
        if self.nbytes + len(chunk) > self.size:
            raise NotFetched(f"the body does not end after the {self.size} bytes that it should have")
        written = 0
        while written < len(chunk):
            try:
                written += os.pwrite(self.descriptor, chunk[written:], self.nbytes + written)
            except OSError as error:
                raise _unwritable(error) from error
        self._digest.update(chunk)
        self.nbytes += len(chunk)

    def sha256(self) -> str:
        """The hash of what has arrived, in hex."""
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Have it on the disk: a power cut must not leave a short file under a trusted name."""
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            raise _unwritable(error) from error


def _unwritable(error: OSError) -> Unwritable:
    return Unwritable(error.strerror or str(error))
