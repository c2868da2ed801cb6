"""The contract suite passes the backends that ship, and catches each fault that it says it catches."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from workers import file_type_model

from backends.contract import (
    CHECKS,
    Broken,
    Check,
    Subject,
    cancelling,
    describing,
    in_a_worker,
    leaving,
    own_model,
    refusing,
    running,
)
from backends.contract import __main__ as command
from backends.kernel import Model
from backends.null import Null, NullProgram

pytest.importorskip("numpy")

CHECKED = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
SECOND_US = 1_000_000


def passes(check: Check, use: str, folder: Path, file_format: str = "onnx") -> None:
    assert check(Subject(use, own_model(folder, file_format)))


@CHECKED
def test_null_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    passes(check, "null", tmp_path)


@CHECKED
def test_fault_keeps_the_contract_until_it_is_told_otherwise(check: Check, tmp_path: Path) -> None:
    passes(check, "fault", tmp_path)


@CHECKED
def test_cpu_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    passes(check, "cpu", tmp_path)


@CHECKED
def test_cpu_keeps_the_contract_with_a_real_model(check: Check) -> None:
    pytest.importorskip("onnxruntime")
    assert check(Subject("cpu", file_type_model()))


FAULTS: list[tuple[dict[str, Any], Check, str]] = [
    ({"does": "unusable"}, running.a_run_fills_every_output, "the driver is not loaded"),
    ({"does": "raise", "at": "probe"}, describing.probe_names_devices, "ZeroDivisionError: a mistake"),
    ({"does": "any_device"}, refusing.an_unknown_device_is_refused, "a device that does not exist"),
    (
        {"does": "invent_code", "at": "load"},
        refusing.a_file_that_is_no_model_is_refused,
        "refused with code 999",
    ),
    ({"does": "wrong_shape"}, describing.a_program_describes_itself, "row_shape=(-1,)"),
    ({"does": "cheap", "run_us": 50_000}, describing.costs_make_sense, "run_s[1] is 1e-09 s, a run took 0.0"),
    ({"does": "hang"}, running.a_run_fills_every_output, "no answer within 3 s"),
    ({"does": "hang", "at": "load"}, describing.a_program_describes_itself, "no answer within 3 s"),
    ({"does": "hang", "at": "close"}, leaving.closing_twice_is_harmless, "no answer within 3 s"),
    ({"does": "hold_interpreter"}, running.a_run_fills_every_output, "no answer within 3 s"),
    ({"does": "abort"}, running.a_run_fills_every_output, "the process was ended by SIGABRT"),
    ({"does": "segfault"}, running.a_run_fills_every_output, "the process was ended by SIGSEGV"),
    ({"does": "exit"}, running.a_run_fills_every_output, "ended with exit code 0 and no answer"),
    ({"does": "raise"}, running.a_run_fills_every_output, "ZeroDivisionError: a mistake"),
    ({"does": "half_filled"}, running.a_run_fills_every_output, "'x' differs"),
    ({"does": "drift"}, running.a_run_fills_every_output, "'x' differs"),
    ({"does": "write_inputs"}, running.a_run_fills_every_output, "read-only"),
    ({"does": "nan"}, running.ordinary_numbers_give_no_nan, "NaN or infinity in x"),
    ({"does": "other_row"}, running.rows_do_not_see_each_other, "row 0 of 'x' beside others differs"),
    ({"does": "other_row"}, running.a_row_alone_gives_the_same, "row 1 of 'x' alone differs"),
    ({"does": "wrong_times"}, running.spent_is_within_the_call, "Spent(begin_ns="),
    ({"does": "negative_joules"}, running.joules_can_be_believed, "-1.0 J"),
    ({"does": "huge_joules"}, running.joules_can_be_believed, "1000000000.0 J in 0.001 s are 1e+12 W"),
    ({"does": "nan_joules"}, running.joules_can_be_believed, "nan J"),
    ({"does": "guessed_joules"}, running.joules_can_be_believed, "joules_source is 'guess'"),
    (
        {"does": "slow_cancel", "run_us": SECOND_US, "for_s": 1},
        cancelling.a_cancel_ends_a_run_within_its_bound,
        "cancelled, run returned",
    ),
    (
        {"does": "deaf", "run_us": SECOND_US},
        cancelling.a_cancel_ends_a_run_within_its_bound,
        "cancelled, run returned",
    ),
    (
        {"does": "hold_interpreter", "run_us": SECOND_US, "for_s": 1},
        cancelling.a_cancel_ends_a_run_within_its_bound,
        "cancelled, run returned",
    ),
    (
        {"does": "hang", "at": "cancel", "for_s": 0.5, "run_us": SECOND_US},
        cancelling.a_cancel_ends_a_run_within_its_bound,
        "cancelled, run returned",
    ),
    ({"does": "write_late"}, leaving.after_a_run_nobody_writes, "x changed after run had ended"),
    ({"does": "leak"}, leaving.close_gives_everything_back, "MiB more after 3 loads"),
    ({"does": "leave_thread"}, leaving.close_gives_everything_back, "3 more threads after 3 loads"),
    (
        {"does": "garbage", "at": "load", "for_s": 0.1},
        in_a_worker.a_worker_gives_the_same,
        "breach of protocol",
    ),
    ({"does": "hang_up", "at": "load", "for_s": 0.1}, in_a_worker.a_worker_gives_the_same, "worker fault"),
]


@pytest.mark.parametrize(
    ("options", "check", "seen"), FAULTS, ids=[f"{o['does']}-{c.__name__}" for o, c, _ in FAULTS]
)
def test_a_fault_is_caught_by_name(
    options: dict[str, Any], check: Check, seen: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = own_model(tmp_path)
    arguments = ["fault", "--options", json.dumps(options), "--model", str(model.path), "--input", "x:FP32:8"]
    hangs = options["does"] in {"hang", "hold_interpreter"} and "for_s" not in options
    assert command.run_apart(check, arguments, limit_s=3 if hangs else 60) == 1
    told = capsys.readouterr().out
    assert told.startswith(f"FAIL  {check.__name__.replace('_', ' ')}\n      seen: ")
    assert seen in told
    assert "\n      rule: " in told
    assert "\n      fix:  " in told


def suite(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "backends.contract", *arguments], capture_output=True, text=True, check=False
    )


def test_from_the_command_line_a_good_backend_passes() -> None:
    done = suite("backends.null:Null", "--options", '{"run_us": 100}')
    assert done.returncode == 0, done.stdout + done.stderr
    skipped = done.stdout.count("skip  ")
    assert skipped == done.stdout.count("      not checked: ") > 0, "it computes nothing"
    assert done.stdout.count("ok    ") == len(CHECKS) - skipped
    passed = f"{len(CHECKS) - skipped} of {len(CHECKS)} checks passed, {skipped} not checked (skip)"
    assert done.stdout.endswith(f"backends.null:Null: {passed}\n")


def test_from_the_command_line_a_bad_backend_fails_by_name() -> None:
    done = suite("fault", "--options", '{"does": "drift"}')
    assert done.returncode == 1
    failed = {line for line in done.stdout.splitlines() if line.startswith("FAIL")}
    assert failed >= {
        "FAIL  a run fills every output",
        "FAIL  rows do not see each other",
        "FAIL  cancel without a run does nothing",
    }


HEAVY = '''
import numpy
from backends.null import Null
from pydantic import BaseModel

class Careless(BaseModel):
    """Ignores what it does not know, and says nothing about what it knows."""
    run_us: int = 0

class Heavy(Null):
    Options = Careless
'''


def test_a_heavy_module_and_careless_options_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy_backend.py").write_text(HEAVY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    subject = Subject("heavy_backend:Heavy", own_model(tmp_path))
    with pytest.raises(Broken, match="also imports numpy"):
        describing.importing_it_is_light(subject)
    with pytest.raises(Broken, match="no_such_option = 1 was accepted"):
        describing.options_refuse_what_they_do_not_know(subject)
    with pytest.raises(Broken, match="no description for run_us"):
        describing.options_are_documented(subject)


class Forgetful(Null):
    """A cost that is known makes it forget how many rows it takes."""

    def load(self, model: Model, device: str) -> NullProgram:
        program = super().load(model, device)
        program.max_batch = 1 if model.known else None
        return program


def test_a_program_that_is_another_when_its_cost_is_known_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    subject = Subject(f"{Path(__file__).stem}:Forgetful", own_model(tmp_path))
    with pytest.raises(Broken, match="with its cost known, outputs and max_batch are"):
        describing.a_known_cost_changes_nothing(subject)


def test_the_right_numbers_are_known_and_wrong_ones_are_seen(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = own_model(tmp_path)
    hardmax = model.path.read_bytes().replace(b"Softmax", b"Hardmax")
    model.path.write_bytes(hardmax)
    with pytest.raises(Broken, match="softmax over eight numbers differs by up to"):
        running.the_numbers_are_right(Subject("cpu", model))


def test_arguments_that_make_no_sense_are_told_apart_from_a_failure() -> None:
    assert "take cpu, fault, fsd, null, nvidia, tflite" in suite("cpx").stderr
    assert suite("cpu", "--options", '{"thread": 1}').returncode == 2
    assert suite("cpu", "--model", "/no/such/file", "--input", "x:FP32:4").returncode == 2
    assert suite("cpu", "--model", __file__, "--input", "x:FLOAT:4").returncode == 2
