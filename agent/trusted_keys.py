"""Whom the vehicle believes: the public keys in `trust.task_keys_dir`, as they are there now.

The folder may change while the agent runs. `<kid>.pem` lets a key in, `<kid>.revoked`, of whatever content, keeps it
out for as long as it is there. What cannot be used is left out and costs the other keys nothing.
"""

import asyncio
import logging
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from agent.protocol import jws
from agent.protocol.keys import KEY_ID, KeyFileError, load_public_key

log = logging.getLogger(__name__)
PERIOD_S: Final = 2.0
KEY: Final = ".pem"
REVOCATION: Final = ".revoked"


@dataclass(frozen=True, slots=True)
class KeyFolder:
    """What one look has found; `problems` has a line for each file, or for the folder, that is of no use as it is."""

    keys: Mapping[str, bytes] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        revoked = f"; revoked: {', '.join(sorted(self.revoked))}" if self.revoked else ""
        many = "public key" if len(self.keys) == 1 else "public keys"
        return f"{len(self.keys)} {many}: {', '.join(self.keys) or 'none'}{revoked}"


def look_into(folder: Path) -> KeyFolder:
    """Read every key of the folder: a few files of 113 bytes, so there is no need to guess what has changed.

    Names with a leading dot are passed over: they are being written.
    """
    try:
        mode = stat.S_IMODE(folder.stat().st_mode)
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        return _refused(f"{folder}: {error.strerror}: name a folder with <kid>.pem files")
    if mode & 0o022:
        return _refused(f"{folder}: mode {mode:04o} lets others add keys: chmod 0755 {folder}")
    keys: dict[str, bytes] = {}
    problems: list[str] = []
    revoked = {path.stem for path in paths if path.suffix == REVOCATION}
    for path in paths:
        if path.suffix == REVOCATION and not KEY_ID.fullmatch(path.stem):
            problems.append(f"{path}: revokes nothing: name it <kid>{REVOCATION}")
        elif path.suffix == KEY and path.stem not in revoked:
            try:
                keys[path.stem] = load_public_key(path)
            except KeyFileError as error:
                problems.append(str(error))
    if not keys and not problems:
        problems.append(f"{folder}: no usable key in it: put the fleet's <kid>.pem files there")
    return KeyFolder(keys, frozenset(revoked), tuple(problems))


def _refused(problem: str) -> KeyFolder:
    return KeyFolder(problems=(problem,))


class TrustedKeys:
    """Verifies signatures by the keys that the folder holds now; each problem with it is logged once.

    Without `required` signatures a folder that is not there is none.
    """

    def __init__(self, folder: Path, *, required: bool) -> None:
        self._folder = folder
        self._required = required
        self._found = KeyFolder()
        self._verifier = jws.Verifier({})
        self.refresh()

    def verify(self, signature_line: bytes, body: bytes) -> str:
        """The id of the key that signed `body`; raises `jws.SignatureRefused` (120, 121)."""
        return self._verifier.verify(signature_line, body)

    def refresh(self) -> None:
        """Look at the folder once."""
        unused = not self._required and not self._folder.exists()
        found = KeyFolder() if unused else look_into(self._folder)
        if found == self._found:
            return
        for problem in found.problems:
            if problem not in self._found.problems:
                log.warning("%s", problem)
        self._found = found
        self._verifier = jws.Verifier(found.keys, found.revoked)
        log.info("%s: %s", self._folder, found)

    async def watch(self) -> NoReturn:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            self.refresh()
