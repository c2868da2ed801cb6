"""`python -m benchmarks micro`: pytest-benchmark with baselines, apart from the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def micro(storage: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks",
            "micro",
            "--storage",
            str(storage),
            "-k",
            "bench_encode_a_result",
            *arguments,
        ],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def baselines(storage: Path) -> list[Path]:
    return sorted(storage.glob("*/*.json"))


def quicken(file: Path) -> None:
    """As if everything had been a thousand times quicker then."""
    kept = json.loads(file.read_text())
    for each in kept["benchmarks"]:
        each["stats"]["median"] /= 1000
    file.write_text(json.dumps(kept))


def test_the_first_run_is_the_baseline_of_the_second_and_a_regression_fails_and_is_not_kept(
    tmp_path: Path,
) -> None:
    storage = tmp_path / "kept here"
    first = micro(storage, "--save", "part", "--fail-above", "20")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "no baseline in" in first.stdout
    [kept] = baselines(storage)
    quicken(kept)
    second = micro(storage, "--save", "part", "--fail-above", "20")
    assert second.returncode == 1
    assert "Performance has regressed" in second.stderr
    assert "Traceback" not in second.stderr
    assert baselines(storage) == [kept]


@pytest.mark.parametrize("arguments", [["--quick", "--save", "look"], []], ids=["a quick look", "a part"])
def test_what_is_not_all_of_it_becomes_no_baseline(tmp_path: Path, arguments: list[str]) -> None:
    looked = micro(tmp_path, *arguments)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert baselines(tmp_path) == []


def test_the_tests_collect_no_benchmark() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "benchmarks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "no tests collected" in listed.stdout
