"""What a connection proves itself with: read from its files at every connect, and looked at for as long as it lasts."""

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from agent.link.options import LinkOptions
from agent.secret_file import exposure

_log = logging.getLogger(__name__)


class Credentials:
    """The TLS context and the password, as the files that `options` name have them now.

    Raises OSError (ssl.SSLError is one) with the file and what is wrong: it cannot be read, does not belong to the
    others, or holds a secret that others may read.
    """

    def __init__(self, options: LinkOptions) -> None:
        self._options = options
        named = (options.ca_file, options.cert_file, options.key_file, options.password_file)
        self._files = [path for path in named if path is not None]
        self._seen = _stamps(self._files)  # before they are read: what changes meanwhile is new
        self.tls = _tls_context(options)
        self.password = _password(options.password_file)

    def renewed(self) -> bool:
        """Whether files have changed since the last look, and can be used as they are now.

        A set that is only half written cannot; it is looked at again when it changes again.
        """
        stamps = _stamps(self._files)
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            Credentials(self._options)
        except OSError as error:
            _log.warning("changed credentials are not used: %s", error)
            return False
        return True


def _stamps(files: Sequence[Path]) -> list[tuple[int, int, int] | None]:
    """Tell a file from a later one in its place; the change time also moves with its permissions."""
    return [_stamp(path) for path in files]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # it is being replaced, or its absence is told when it is read
    return status.st_ino, status.st_ctime_ns, status.st_size


def _tls_context(options: LinkOptions) -> ssl.SSLContext | None:
    if options.ca_file is None:
        return None
    if options.key_file is not None:
        _check_secret(options.key_file)
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
        if options.cert_file is not None:
            context.load_cert_chain(options.cert_file, options.key_file)
    except OSError as error:  # names no file
        files = [str(file) for file in (options.ca_file, options.cert_file, options.key_file) if file]
        raise OSError(f"TLS with {', '.join(files)}: {error}") from error
    return context


def _check_secret(path: Path) -> None:
    if problem := exposure(path):
        raise OSError(f"{path}: {problem}")


def _password(path: Path | None) -> str | None:
    """What the file holds, less the end of its line."""
    if path is None:
        return None
    _check_secret(path)
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise OSError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from error
