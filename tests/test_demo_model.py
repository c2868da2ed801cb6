import hashlib
import importlib.metadata
from pathlib import Path

import pytest

from agent.demo import model


@pytest.fixture
def packaged() -> None:
    try:
        importlib.metadata.distribution(model.DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package of the model is not installed")


@pytest.mark.usefixtures("packaged")
def test_the_model_is_in_the_cache_under_its_hash(tmp_path: Path) -> None:
    types = model.provide(tmp_path / "models")
    content = (types.folder / model.MODEL_SHA256).read_bytes()
    assert hashlib.sha256(content).hexdigest() == model.MODEL_SHA256
    assert len(types.labels) == 214


@pytest.mark.usefixtures("packaged")
def test_a_damaged_cache_is_mended(tmp_path: Path) -> None:
    model.provide(tmp_path)
    (tmp_path / model.MODEL_SHA256).write_bytes(b"half of a")
    model.provide(tmp_path)
    content = (tmp_path / model.MODEL_SHA256).read_bytes()
    assert hashlib.sha256(content).hexdigest() == model.MODEL_SHA256
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [model.MODEL_SHA256, model.CONFIG_SHA256]
    )


@pytest.mark.usefixtures("packaged")
def test_a_cache_is_enough_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.provide(tmp_path)
    monkeypatch.setattr(model, "DISTRIBUTION", "no-such-distribution")
    assert model.provide(tmp_path) == before


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "DISTRIBUTION", "no-such-distribution")
    with pytest.raises(
        model.ModelMissingError, match=r"no-such-distribution, which is not here: .*pip install"
    ):
        model.provide(tmp_path)


@pytest.mark.usefixtures("packaged")
def test_another_model_than_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "MODEL_SHA256", "0" * 64)
    with pytest.raises(model.ModelMissingError, match=f"has SHA-256 fe2d2eb4.*, not {'0' * 64}"):
        model.provide(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_where_the_desktop_standard_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert model.cache_folder() == Path("/somewhere/parkwatt/models")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/anybody")
    assert model.cache_folder() == Path("/home/anybody/.cache/parkwatt/models")
