"""What docs/writing-a-backend.md shows is done here as it stands there, in a package apart from ours."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from running import parkwatt

from agent.settings import BackendSettings
from backends.contract import CHECKS
from backends.kernel import CODES

PAGE = Path(__file__).parent.parent / "docs" / "writing-a-backend.md"


def block(name: str) -> str:
    """The code block whose first line says that it is the file `name`."""
    found = re.search(
        rf"^```\w+\n# {re.escape(name)}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, f"{PAGE} has no {name}"
    return found[1]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The package of the page as an installer leaves it: the module, and its metadata with the entry point."""
    pytest.importorskip("numpy")
    project = tomllib.loads(block("pyproject.toml"))["project"]
    (tmp_path / "yourchip.py").write_text(block("yourchip.py"))
    record = tmp_path / f"{project['name']}-{project['version']}.dist-info"
    record.mkdir()
    (record / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = [
        f"[{group}]\n{name} = {target}\n"
        for group, entries in project["entry-points"].items()
        for name, target in entries.items()
    ]
    (record / "entry_points.txt").write_text("".join(points))
    return tmp_path


@pytest.mark.parametrize("use", ["yourchip:YourChip", "yourchip"])
def test_the_backend_of_the_page_keeps_the_contract(
    use: str, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    command = [sys.executable, "-m", "backends.contract", use]
    done = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = f"{len(CHECKS) - 1} of {len(CHECKS)} checks passed, 1 not checked (skip)"
    assert f"{use}: {passed}" in done.stdout, "the suite's own model is too quick for a cancel in its middle"


def test_it_checks_its_numbers_not_only_its_manners(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    module = installed / "yourchip.py"
    module.write_text(module.read_text().replace("powers / powers.sum(", "powers * powers.sum("))
    command = [sys.executable, "-m", "backends.contract", "yourchip", "--only", "the_numbers_are_right"]
    done = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "softmax over eight numbers differs" in done.stdout


def test_the_command_line_lists_it_with_its_options(installed: Path) -> None:
    listed = parkwatt("backends", PYTHONPATH=str(installed))
    assert "yourchip on yourchip0: usable for onnx" in listed.stdout.splitlines()
    options = parkwatt("backends", "--options", "yourchip", PYTHONPATH=str(installed))
    assert options.returncode == 0
    assert options.stdout == "slice_rows = 64  # integer >= 1: rows that go to the chip at once\n"


def test_the_agent_takes_it_by_its_name(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(installed)
    (entry,) = tomllib.loads(block("agent.toml"))["backends"]
    assert BackendSettings.model_validate(entry).use == "yourchip"


def test_it_takes_less_than_a_hundred_lines() -> None:
    lines = [line for line in block("yourchip.py").splitlines() if line.strip()]
    assert len(lines) < 100


def test_the_page_names_every_code() -> None:
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)} == CODES
