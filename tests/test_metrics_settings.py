"""Where metrics may be, and what `parkwatt check` says of the place."""

import socket
import sys
from pathlib import Path

import pytest
from config_files import config_file

from agent.check.finding import Finding
from agent.check.metrics import metrics
from agent.metrics.address import Endpoint
from agent.settings import ConfigError, load
from fleet.broker import free_port


def configured(folder: Path, listen: str, more: str = "") -> Path:
    return config_file(folder, f'[metrics]\nlisten = "{listen}"\n{more}')


def found(folder: Path, listen: str, *, running: bool = False) -> list[Finding]:
    return list(metrics(load(configured(folder, listen), {}).metrics, running=running))


def test_without_a_word_there_are_none(tmp_path: Path) -> None:
    assert load(config_file(tmp_path), {}).metrics.address is None
    assert not found(tmp_path, "")


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("unix:/run/parkwatt/metrics.sock", Path("/run/parkwatt/metrics.sock")),
        ("127.0.0.1:9464", Endpoint("127.0.0.1", 9464)),
        ("127.1.2.3:1", Endpoint("127.1.2.3", 1)),
        ("[::1]:9464", Endpoint("::1", 9464)),
        ("[0:0:0:0:0:0:0:1]:9464", Endpoint("::1", 9464)),
    ],
)
def test_a_place_is_a_socket_or_a_port_of_this_computer(
    tmp_path: Path, listen: str, address: Path | Endpoint
) -> None:
    assert load(configured(tmp_path, listen), {}).metrics.address == address


@pytest.mark.parametrize(
    "listen",
    ["0.0.0.0:9464", "192.168.1.7:9464", "[::]:9464", "[fe80::1]:9464", "[2001:db8::1]:9464", "8.8.8.8:80"],
)
def test_what_another_computer_can_reach_is_refused(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError, match="is more than this computer: give a loopback address") as refused:
        load(configured(tmp_path, listen), {})
    assert f"metrics.listen = '{listen}'" in str(refused.value)


@pytest.mark.parametrize(
    "listen",
    [
        "9464",
        ":9464",
        "localhost:9464",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:9464/metrics",
        "127.0.0.256:9464",
        "http://127.0.0.1:9464",
        "unix:metrics.sock",
        "unix:",
        f"unix:/{'a' * 200}",
        " ",
    ],
)
def test_what_is_no_place_is_refused_with_its_key(tmp_path: Path, listen: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(configured(tmp_path, listen), {})
    assert "metrics.listen = " in str(refused.value)


def test_a_group_is_for_a_socket(tmp_path: Path) -> None:
    group = 'group = "root"\n'
    with pytest.raises(ConfigError, match="group is for a Unix socket"):
        load(configured(tmp_path, "127.0.0.1:9464", group), {})
    assert load(configured(tmp_path, "unix:/run/metrics.sock", group), {}).metrics.group == "root"


def test_check_says_that_a_place_can_be_used(tmp_path: Path) -> None:
    for listen in (f"unix:{tmp_path}/a/b/metrics.sock", f"127.0.0.1:{free_port()}"):
        (finding,) = found(tmp_path, listen)
        assert (finding.ok, finding.name, finding.text) == (True, listen, "can be served there")


def test_check_names_a_port_that_is_taken_unless_it_is_ours(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        (finding,) = found(tmp_path, listen)
        assert (finding.ok, finding.text) == (False, "Address already in use")
        assert finding.fix == "free it, or set metrics.listen"
        (finding,) = found(tmp_path, listen, running=True)
        assert finding.ok


def test_check_names_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "metrics.sock").touch()
    (finding,) = found(tmp_path, f"unix:{tmp_path}/metrics.sock")
    assert (finding.ok, finding.text) == (False, "exists and is no socket")


def test_check_says_how_to_get_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    (finding,) = found(tmp_path, "127.0.0.1:9464")
    assert (finding.ok, finding.text) == (False, "prometheus_client is not installed")
    assert finding.fix == "pip install 'parkwatt[metrics]', or leave metrics.listen empty"
