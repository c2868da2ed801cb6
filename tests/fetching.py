"""What the tests of fetching share: a landing in memory, a network by hand, and patience that ends soon."""

import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.fetch.addresses import Address
from agent.fetch.errors import NotFetched
from agent.fetch.fetch import fetch
from agent.fetch.landing import Landing
from agent.fetch.network import Network, Patience
from agent.fetch.place import HostPattern, Rules

QUICK = Patience(
    stall_s=20,
    window_s=30,
    tries=3,
    first_wait_s=0.01,
    longest_wait_s=0.02,
    longest_asked_s=5,
    progress_bytes=1 << 40,
)
LOOPBACK = "127.0.0.1"


class Basket(Landing):
    """Takes a body of `wanted` bytes, or of any size."""

    def __init__(self, wanted: int | None = None) -> None:
        super().__init__(os.memfd_create("basket"))
        self.wanted = wanted

    def expect(self, size: int | None) -> int:
        if self.wanted is not None and size not in {None, self.wanted}:
            raise NotFetched(f"{size} bytes where {self.wanted} are wanted")
        if (known := size if self.wanted is None else self.wanted) is None:
            raise NotFetched("no size")
        return known

    @property
    def body(self) -> bytes:
        return os.pread(self.descriptor, self.nbytes + 1, 0)


def at(*addresses: str) -> Network:
    """A network in which every name has these addresses."""

    def resolve(_: str, port: int) -> Sequence[Address]:
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, (address, port)) for address in addresses
        ]

    return Network(resolve=resolve, patience=QUICK)


def allowing(*hosts: str, private_networks: bool = True, ca_file: Path | None = None) -> Rules:
    return Rules("inputs", tuple(map(HostPattern.of, hosts)), (), private_networks, ca_file)


def fetched(url: str, rules: Rules, basket: Basket, network: Network, **patience: Any) -> Basket:
    """Fetch with a patience that differs in these points."""
    changed = replace(network, patience=replace(network.patience, **patience))
    fetch(url, rules, basket, threading.Event(), changed)
    return basket
