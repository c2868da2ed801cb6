"""The example broker of deploy/mosquitto, on 127.0.0.1: exactly its files, with the places replaced."""

import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.certificates import Authority
from fleet.broker import HOST, Broker, MosquittoBroker, free_port

DEPLOY = Path(__file__).parent.parent / "deploy/mosquitto"


class ShippedBroker(Broker):
    """`port` is for vehicles, `backend_port` for backends; `certs` holds what /etc/mosquitto/certs would."""

    name = "mosquitto"
    config_file = "parkwatt.conf"

    def __init__(self, certs: Path) -> None:
        super().__init__()
        self.backend_port = free_port()
        self._certs = certs

    def _command(self) -> list[str]:
        return [MosquittoBroker.find() or "mosquitto", "-c", str(self._path(self.config_file))]

    def _config(self) -> str:
        text = (DEPLOY / "parkwatt.conf").read_text()
        for shipped, here in (
            ("listener 8883\n", f"listener {self.port} {HOST}\n"),
            ("listener 8884\n", f"listener {self.backend_port} {HOST}\n"),
            ("/etc/mosquitto/certs/", f"{self._certs}/"),
            ("/etc/mosquitto/vehicles.acl", f"{DEPLOY}/vehicles.acl"),
            ("/etc/mosquitto/backends.acl", f"{DEPLOY}/backends.acl"),
            ("persistence_location /var/lib/mosquitto/", f"persistence_location {self._path('')}/"),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        # as root it would change to a user who cannot read our files
        return f"user {pwd.getpwuid(os.getuid()).pw_name}\n{text}"


@dataclass
class Premises:
    """The broker's certificates in a folder, and the two authorities that it knows."""

    folder: Path
    vehicles: Authority = field(init=False)
    backends: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.vehicles = Authority(self.folder, "vehicles-ca")
        self.backends = Authority(self.folder, "backends-ca")
        self.vehicles.issue("broker")

    def vehicle(self, name: str, **terms: Any) -> dict[str, Any]:
        """TLS options of a link with a certificate for this vehicle."""
        return credentials(self.vehicles, self.vehicles, name, **terms)

    def backend(self, name: str = "fleet-backend") -> dict[str, Any]:
        """TLS options of a link with a certificate for this backend."""
        return credentials(self.vehicles, self.backends, name)


def credentials(broker: Authority, ours: Authority, name: str, **terms: Any) -> dict[str, Any]:
    """TLS options of a link that trusts the `broker`'s authority and has a certificate by `ours`."""
    certificate, key = ours.issue(name, **terms)
    return {"ca_file": broker.path, "cert_file": certificate, "key_file": key}


def over_tls(config: Path, terms: dict[str, Any]) -> Path:
    """Make an agent's configuration use these TLS options."""
    lines, text = "".join(f'{name} = "{path}"\n' for name, path in terms.items()), config.read_text()
    assert "[mqtt]\n" in text
    config.write_text(text.replace("[mqtt]\n", f"[mqtt]\n{lines}"))
    return config
