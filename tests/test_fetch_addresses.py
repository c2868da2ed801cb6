"""Where a fetch may connect to, whatever the names and the name servers say."""

import socket
from collections.abc import Sequence

import pytest
from fetching import at

from agent.fetch.addresses import Address, judged, objection, resolved
from agent.fetch.errors import Interrupted, NotFetched

PUBLIC = [
    "93.184.215.14",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "2606:4700::1111",
    "2a00:1450:4001::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]
LOCAL = [
    "127.0.0.1",
    "127.255.255.254",
    "::1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.100.100.200",
    "169.254.169.254",
    "169.254.170.2",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "64:ff9b:1::a00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b::10.0.0.1",
]
NEVER = [
    "0.0.0.0",  # noqa: S104 - nothing is bound
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.1",
    "168.63.129.16",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:0808:0808::",
    "3fff::1",
    "::127.0.0.1",
    "100::1",
    "4000::1",
    "::ffff:0.0.0.0",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_open_internet_may_be_reached(address: str) -> None:
    assert objection(address, private_networks=False) == ""


@pytest.mark.parametrize("address", LOCAL)
def test_what_is_behind_the_cars_own_door_needs_the_owners_word(address: str) -> None:
    assert objection(address, private_networks=False)
    assert objection(address, private_networks=True) == ""


@pytest.mark.parametrize("address", NEVER)
def test_what_no_server_has_is_never_connected_to(address: str) -> None:
    assert objection(address, private_networks=False)
    assert objection(address, private_networks=True)


@pytest.mark.parametrize("name", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost"])
def test_another_way_to_write_loopback_is_loopback(name: str) -> None:
    with pytest.raises(NotFetched, match="this computer"):
        judged(name, 443, resolved, private_networks=False)


def test_one_private_address_among_public_ones_refuses_the_host() -> None:
    network = at("93.184.215.14", "10.0.0.1")
    with pytest.raises(NotFetched) as refused:
        judged("data.example", 443, network.resolve, private_networks=False)
    assert "data.example has the address 10.0.0.1 (a private network)" in refused.value.text


def test_a_name_that_cannot_be_resolved_now_may_be_later() -> None:
    def offline(_: str, __: int) -> Sequence[Address]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with pytest.raises(Interrupted, match="Temporary failure"):
        judged("data.example", 443, offline, private_networks=False)
