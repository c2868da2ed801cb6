"""Where models and inputs may come from, as the owner writes it down and tries it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from config_files import config_file
from https_server import HttpsServer

from agent.check.person import Person
from agent.check.places import input_places, model_source
from agent.settings import ConfigError, InputSettings, ModelSettings, Settings, load
from benchmarks.certificates import Authority

ME = Person.asking()


def loaded(folder: Path, more: str) -> Settings:
    return load(config_file(folder, more), {})


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('[inputs]\nhosts = ["https://data.example"]', "should be a host name in lower case"),
        ('[inputs]\nhosts = ["*"]', "should be a host name in lower case"),
        ('[inputs]\nfile_dirs = ["data"]', "should be an absolute path"),
        ("[inputs]\nmax_bytes = 0", "greater than 0"),
        ('[models]\nsource = "http://models.example/x"', "should be file:///a/folder or https://host/path"),
        ('[models]\nsource = "https://user:secret@models.example/x"', "credentials"),
        ('[models]\nsource = "https://models.example/x?key=1"', "query"),
        ('[models]\nsource = "file://models"', "should be file:///"),
        ('[models]\nca_file = "/nope"', "cannot be read"),
    ],
)
def test_a_place_that_could_not_work_is_named(tmp_path: Path, more: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, more)
    assert problem in str(refused.value)


def test_by_default_inputs_come_from_nowhere_and_nothing_is_private(tmp_path: Path) -> None:
    settings = loaded(tmp_path, "")
    assert (settings.inputs.hosts, settings.inputs.file_dirs) == ((), ())
    assert settings.inputs.max_bytes == 268_435_456
    assert not settings.inputs.private_networks
    assert not settings.models.private_networks


def test_one_model_is_bounded_by_the_cache_and_by_its_own_limit(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").models.largest_bytes == 2_000_000_000
    assert loaded(tmp_path, "[models]\nmax_bytes = 5_000").models.largest_bytes == 5_000
    assert loaded(tmp_path, "[models]\nmax_bytes = 5_000_000_000").models.largest_bytes == 2_000_000_000


# parkwatt check


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Iterator[HttpsServer]:
    with HttpsServer(authority.issue("server")) as server:
        yield server


async def test_a_source_that_answers_with_the_right_certificate_is_usable(
    server: HttpsServer, authority: Authority
) -> None:
    url = server.url("/models")
    finding = await model_source(ModelSettings(source=url, private_networks=True, ca_file=authority.path), ME)
    assert finding.ok
    assert server.requests == []  # it is only connected to


async def test_a_source_that_cannot_be_used_says_why(server: HttpsServer, authority: Authority) -> None:
    url = server.url("/models")
    stranger = await model_source(ModelSettings(source=url, private_networks=True), ME)
    assert "certificate is not trusted" in stranger.text
    private = await model_source(ModelSettings(source=url, ca_file=authority.path), ME)
    assert "private_networks = true would allow it" in private.text
    assert not stranger.ok
    assert not private.ok
    assert "models.ca_file" in stranger.fix


def test_folders_of_inputs_are_looked_at(tmp_path: Path) -> None:
    inputs = InputSettings(file_dirs=(tmp_path, tmp_path / "absent"), hosts=("data.example",))
    here, absent, hosts = input_places(inputs, ME)
    assert (here.ok, absent.ok, hosts.ok) == (True, False, True)
    assert "inputs.file_dirs" in absent.fix
