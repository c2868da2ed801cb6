"""Where Prometheus finds the agent's numbers: a Unix socket, or a port that only this computer can reach."""

import contextlib
import ipaddress
import re
from pathlib import Path
from typing import Final, NamedTuple

UNIX: Final = "unix:"
FORMS: Final = '"unix:/run/parkwatt/metrics.sock", "127.0.0.1:9464" or "[::1]:9464"'


class Endpoint(NamedTuple):
    """A loopback address and a port."""

    host: str
    port: int


def address(listen: str) -> Path | Endpoint:
    """What `metrics.listen` means.

    Raises ValueError also for what another computer could reach: the numbers tell when nobody is at the car.
    """
    if listen.startswith(UNIX):
        path = Path(listen.removeprefix(UNIX))
        if not path.is_absolute():
            raise ValueError(f"should have an absolute path: {FORMS}")
        return path
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:]+)]|([0-9.]+)):([0-9]{1,5})", listen)
    if not found or not 1 <= int(found[3]) <= 65_535:
        raise ValueError(f"should be {FORMS}, or empty for none")
    host = ipaddress.ip_address(found[1] or found[2])
    if not host.is_loopback:
        raise ValueError(f"is more than this computer: give a loopback address, {FORMS}")
    return Endpoint(str(host), int(found[3]))


def is_loopback(host: str) -> bool:
    """Whether a Host field (RFC 9110 section 7.2) names this computer as itself."""
    found = re.fullmatch(r"\[([^]]*)](?::[0-9]*)?|([^:]*)(?::[0-9]*)?", host)
    name = (found[1] or found[2] or "") if found else ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name.lower() == "localhost"
