"""The files of our Unix sockets: who may open them, and whose they are."""

import errno
import grp
import os
import socket
import stat
from pathlib import Path

PROBE_TIMEOUT_S = 5.0
BACKLOG = 64


class ControlSocketTakenError(Exception):
    """Another agent answers on the socket."""


def listening(path: Path, group: str | None = None, setting: str = "control.socket") -> socket.socket:
    """A listening socket of mode 0600, or 0660 for `group`; what a dead agent left at `path` is replaced.

    `setting` is the key that says where it is to be; the group's stands beside it.

    Raises `ControlSocketTakenError`, or OSError where the folder cannot be written or the group not be given.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise _no_place(error, path.parent, setting) from error
    if path.is_socket():
        if _somebody_answers(path):
            raise ControlSocketTakenError(f"{path}: another agent answers here; stop it or set {setting}")
        path.unlink()
    elif path.exists():
        raise FileExistsError(errno.EEXIST, f"exists and is no socket; remove it or set {setting}", str(path))
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    # Linux creates the file with the mode of the unbound socket (unix_bind in net/unix/af_unix.c): there is
    # no moment at which others could connect.
    os.fchmod(bound.fileno(), stat.S_IRUSR | stat.S_IWUSR)
    try:
        _name(bound, path, setting)
        if group is not None:
            _share(path, group, f"{setting.partition('.')[0]}.group")
        bound.listen(BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def _name(bound: socket.socket, path: Path, setting: str) -> None:
    try:
        bound.bind(os.fspath(path))
    except OSError as error:
        raise _no_place(error, path, setting) from error


def _no_place(error: OSError, path: Path, setting: str) -> OSError:
    """Python says `AF_UNIX path too long` without a number."""
    advice = f"let the agent's user write there, as RuntimeDirectory= in its unit does, or set {setting}"
    return OSError(error.errno or errno.ENAMETOOLONG, f"{error.strerror or error}; {advice}", str(path))


def _share(path: Path, group: str, setting: str) -> None:
    """Let the members of `group` connect too (unix(7): that takes permission to write)."""
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except PermissionError as error:
        path.unlink()
        advice = f"cannot be given to group {group}; make the agent's user a member of it, or unset {setting}"
        raise PermissionError(errno.EPERM, advice, str(path)) from error
    path.chmod(0o660)


def _somebody_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:  # somebody listens, and is too busy to accept
            return True
    return True
