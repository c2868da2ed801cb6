"""The contract suite passes the backends that ship, and catches one that breaks the contract."""

import subprocess
import sys
from pathlib import Path

import pytest
from workers import file_type_model

from backends.contract import CHECKS, Check, Subject, own_model

pytest.importorskip("numpy")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("use", ["cpu", "null"])
def test_what_ships_keeps_the_contract(use: str, check: Check, tmp_path: Path) -> None:
    check(Subject(use, own_model(tmp_path)))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_cpu_keeps_the_contract_with_a_real_model(check: Check) -> None:
    check(Subject("cpu", file_type_model()))


def suite(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "backends.contract", *arguments], capture_output=True, text=True, check=False
    )


def test_from_the_command_line_a_good_backend_passes() -> None:
    done = suite("backends.null:Null", "--options", '{"run_us": 100}')
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok    ") == len(CHECKS)


def test_from_the_command_line_a_bad_backend_fails_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    done = suite("unruly_backends:BreaksTheContract")
    assert done.returncode == 1
    failed = {line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("FAIL")}
    assert failed >= {
        "FAIL  options refuse what they do not know",
        "FAIL  an unknown device is refused",
        "FAIL  a run fills every output",
        "FAIL  rows do not see each other",
        "FAIL  a row alone gives the same",
        "FAIL  cancel without a run does nothing",
    }


def test_arguments_that_make_no_sense_are_told_apart_from_a_failure() -> None:
    assert "take cpu, null" in suite("cpx").stderr
    assert suite("cpu", "--options", '{"thread": 1}').returncode == 2
    assert suite("cpu", "--model", "/no/such/file", "--input", "x:FP32:4").returncode == 2
    assert suite("cpu", "--model", __file__, "--input", "x:FLOAT:4").returncode == 2
