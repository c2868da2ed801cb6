"""A start that is measured compiles nothing: an installed agent has its bytecode."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import bytecode


def sources(place: Path, value: int) -> Path:
    for package in bytecode.PACKAGES:
        (place / package).mkdir()
        (place / package / "__init__.py").touch()
    path = place / "agent" / "part.py"
    path.write_text(f"VALUE = {value}\n")
    return path


def compiled_by_a_start(place: Path) -> bool:
    """Whether an interpreter that may write nothing has to compile the module."""
    says = subprocess.run(
        [sys.executable, "-v", "-c", "import agent.part"],
        env={**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=place,
    ).stderr
    return f"matches {place / 'agent' / 'part.py'}" not in says


def test_what_was_changed_is_compiled_before_starts_are_measured(tmp_path: Path) -> None:
    path = sources(tmp_path, 1)
    assert compiled_by_a_start(tmp_path)
    assert bytecode.as_installed(tmp_path)
    assert not compiled_by_a_start(tmp_path)
    path.write_text("VALUE = 2\n")
    os.utime(path, (path.stat().st_mtime + 60,) * 2)
    assert compiled_by_a_start(tmp_path)
    assert bytecode.as_installed(tmp_path)
    assert not compiled_by_a_start(tmp_path)


def test_a_figure_says_so_where_no_bytecode_can_be_written(tmp_path: Path) -> None:
    path = sources(tmp_path, 1)
    Path(importlib.util.cache_from_source(str(path))).parent.touch()  # no folder can be made in its place
    assert not bytecode.as_installed(tmp_path)
