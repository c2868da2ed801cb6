"""Who will run the agent, and what the system lets that user do: not always who asks."""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

READ: Final = 4
WRITE: Final = 2
ENTER: Final = 1
"""Of a folder; bits of a mode as chmod(2) has them."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user with its groups. Access lists beyond owner, group and mode are not looked at."""

    name: str
    uid: int
    gids: frozenset[int]

    @classmethod
    def asking(cls) -> Self:
        """Whoever runs this process."""
        uid = os.geteuid()
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:  # a container need not name its users
            name = str(uid)
        return cls(name, uid, frozenset({os.getegid(), *os.getgroups()}))

    @classmethod
    def named(cls, name: str) -> Self:
        """A user of this computer; raises KeyError."""
        found = pwd.getpwnam(name)
        return cls(name, found.pw_uid, frozenset(os.getgrouplist(name, found.pw_gid)))

    def may(self, path: Path, need: int) -> bool:
        """Whether this user may do all of `need` with `path`, and reach it; False where it is not there."""
        try:
            reached = all(self._allowed(folder, ENTER) for folder in path.absolute().parents)
            return reached and self._allowed(path, need)
        except OSError:
            return False

    def _allowed(self, path: Path, need: int) -> bool:
        if self.uid == 0:
            return path.exists()
        status = path.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid in self.gids else 0
        return status.st_mode >> shift & need == need


def owner_of(path: Path) -> str:
    """The name of the user to whom a file belongs, or its number."""
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
