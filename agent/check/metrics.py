"""Whether Prometheus could read the agent's numbers."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from agent.check.finding import Finding, broken, works
from agent.metrics import switch
from agent.metrics.address import Endpoint
from agent.settings import MetricsSettings


def metrics(settings: MetricsSettings, *, running: bool) -> Iterator[Finding]:
    """Whether they can be served, if they are wanted; an agent that runs has the place already."""
    if settings.address is not None:
        yield _served(settings, settings.address, running=running)


def _served(settings: MetricsSettings, where: Path | Endpoint, *, running: bool) -> Finding:
    if switch.missing():
        return broken("metrics", settings.listen, f"{switch.LIBRARY} is not installed", switch.INSTALL)
    if running:
        return works("metrics", settings.listen, "served by the agent that runs now")
    if problem := _on_socket(where) if isinstance(where, Path) else _on_port(*where):
        return broken("metrics", settings.listen, problem, "free it, or set metrics.listen")
    return works("metrics", settings.listen, "can be served there")


def _on_socket(path: Path) -> str:
    if path.exists() and not path.is_socket():
        return "exists and is no socket"
    folder = next(folder for folder in path.parents if folder.exists())
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written"


def _on_port(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return os.strerror(error.errno or errno.EIO)
    return ""
