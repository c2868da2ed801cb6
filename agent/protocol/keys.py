"""Key files: `<kid>.pem` holds a public Ed25519 key, `<kid>.key` the private one.

PEM (RFC 7468) around the one DER form that RFC 8410 has for each: SubjectPublicKeyInfo and PKCS #8
version 1. `openssl pkey` reads and writes both.
"""

import base64
import binascii
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nacl import bindings

if TYPE_CHECKING:
    from nacl.signing import SigningKey

SPKI_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")
PKCS8_PREFIX: Final = bytes.fromhex("302e020100300506032b657004220420")
KEY_BYTES: Final = 32
FILE_MAX_BYTES: Final = 4096
KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class KeyFileError(Exception):
    """A key file that cannot be used; the text is one line for the person who has to mend it."""


def load_public_key(path: Path) -> bytes:
    """The public key (32 bytes) in `<kid>.pem`; refuses a file that others may write: they would let themselves in."""
    _check_key_id(path.stem, path)
    text, mode = _content(path, "give the path of a public key file")
    if mode & 0o022:
        raise KeyFileError(f"{path}: mode {mode:04o} lets others replace the key: chmod 0644 {path}")
    return _unwrap(path, text, "PUBLIC KEY", SPKI_PREFIX)


def load_private_key(path: Path) -> "SigningKey":
    """The private key; refuses a file that anybody but its owner may use."""
    # only the fleet signs: this keeps 0.5 MiB out of the agent
    from nacl.signing import SigningKey  # noqa: PLC0415

    text, mode = _content(path, "give the path of a private key file")
    if mode & 0o077:
        raise KeyFileError(f"{path}: mode {mode:04o} lets others use the private key: chmod 0600 {path}")
    return SigningKey(_unwrap(path, text, "PRIVATE KEY", PKCS8_PREFIX))


def write_key_pair(directory: Path, kid: str) -> tuple[Path, Path]:
    """Make a new key and write `<kid>.pem` and `<kid>.key` (mode 0600); the two paths in this order.

    Makes the directory where it is missing and never overwrites a key.
    """
    public_path, private_path = directory / f"{kid}.pem", directory / f"{kid}.key"
    _check_key_id(kid, public_path)
    seed = os.urandom(KEY_BYTES)
    public_key, _ = bindings.crypto_sign_seed_keypair(seed)
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)  # a car refuses one that a group may write
    except OSError as error:
        raise KeyFileError(f"{directory}: {error.strerror}: choose a directory for the keys") from None
    _write_new(private_path, _wrap("PRIVATE KEY", PKCS8_PREFIX + seed), 0o600)
    try:
        _write_new(public_path, _wrap("PUBLIC KEY", SPKI_PREFIX + public_key), 0o644)
    except KeyFileError:
        private_path.unlink()
        raise
    return public_path, private_path


def _check_key_id(kid: str, path: Path) -> None:
    if not KEY_ID.fullmatch(kid):
        raise KeyFileError(f"{path}: the name is the key id: use 1-64 of A-Z a-z 0-9 _ -")


def _content(path: Path, fix: str) -> tuple[bytes, int]:
    """The start of the file, which holds any key, and its permission bits."""
    try:
        # O_NONBLOCK: a FIFO that nobody writes to would be waited for
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = "directory" if stat.S_ISDIR(status.st_mode) else "device or pipe"
                raise KeyFileError(f"{path}: a {kind} and no file: {fix}")
            return os.read(descriptor, FILE_MAX_BYTES), stat.S_IMODE(status.st_mode)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}: {fix}") from None


def _unwrap(path: Path, text: bytes, label: str, prefix: bytes) -> bytes:
    """The 32 bytes of the key in the file's one PEM block."""
    block = re.fullmatch(
        rb"\s*-----BEGIN %b-----([A-Za-z0-9+/=\s]+)-----END %b-----\s*" % (label.encode(), label.encode()),
        text,
    )
    try:
        der = base64.b64decode(block[1]) if block else b""
    except binascii.Error:
        der = b""
    if not der.startswith(prefix) or len(der) != len(prefix) + KEY_BYTES:
        raise KeyFileError(
            f"{path}: holds no key: it takes one PEM block `{label}` with an unencrypted Ed25519 key"
        )
    return der[len(prefix) :]


def _wrap(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.b64encode(der).decode()}\n-----END {label}-----\n".encode()


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    except FileExistsError:
        raise KeyFileError(f"{path}: exists: choose another key id, or move the old pair away") from None
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}: choose a directory that can be written") from None
