"""`python -m benchmarks compare A B`: what it prints, and what it exits with."""

from pathlib import Path

import pytest
from bench_command import called
from bench_results import Machine, Workshop, results

from benchmarks.throughput.results import Results, write


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    return folders


def put(files: tuple[Path, Path], *both: Results) -> None:
    for folder, found in zip(files, both, strict=True):
        write(folder, found)


def test_a_regression_exits_1_and_says_which(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    put(files, results(Workshop(1).row(Machine())), results(Workshop(2).row(Machine(latency_ms=5))))
    a, b = files
    code, out, _ = called(capsys, "compare", a, b)
    assert code == 1
    assert "REGRESSION" in out
    assert "4 regression(s) beyond 5%" in out
    assert called(capsys, "compare", b, a).code == 0


def test_a_wide_threshold_lets_the_same_pass(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    put(files, results(Workshop(1).row(Machine())), results(Workshop(2).row(Machine(latency_ms=5))))
    code, out, _ = called(capsys, "compare", *files, "--threshold", "40%")
    assert code == 0
    assert "worse" in out


def test_what_must_not_be_overlooked_is_said_first(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    marked = Machine(marks=("busy machine: others took 30 %",))
    before = results(Workshop(1).row(Machine()), Workshop(1).row(Machine(), "resnet50"))
    after = results(Workshop(2).row(marked), quick=True, partial=True, cores=8, versions={"onnxruntime": "2"})
    put(files, before, after)
    _, out, _ = called(capsys, "compare", *files)
    for said in (
        "note: B is a quick run",
        "note: B is partial",
        "note: machines differ: cores 2 against 8",
        "note: versions differ: onnxruntime 1.31.1 against 2",
        "note: B: busy machine: others took 30 %",
        "only in A: resnet50",
        "hold together with 95%",
    ):
        assert said in out


def test_two_backends_of_one_file_beside_each_other(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    both = results(
        Workshop(1).row(Machine(), use="cpu"), Workshop(2).row(Machine(latency_ms=2), use="tflite")
    )
    put(files, both, both)
    code, out, _ = called(
        capsys, "compare", files[0], files[0], "--backend-a", "cpu", "--backend-b", "tflite"
    )
    assert code == 0
    assert "cpu against tflite" in out
    assert "better" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threshold", "fast"], "--threshold fast: should be a percentage"),
        (["--threshold", "150%"], "--threshold 150%: should be a percentage"),
        (["--backend-a", "tpu"], "has no backend 'tpu'; it has cpu"),
        (["--model", "resnet"], "has no model 'resnet'; it has file-types"),
    ],
)
def test_a_wrong_call_is_refused_in_a_line(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    put(files, results(Workshop(1).row(Machine())), results(Workshop(2).row(Machine())))
    code, _, err = called(capsys, "compare", *files, *arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


def test_a_file_that_is_no_result_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text("{}")
    code, _, err = called(capsys, "compare", tmp_path, tmp_path)
    assert code == 2
    assert err.count("\n") == 1


def test_files_without_a_row_in_common_are_refused(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    put(files, results(Workshop(1).row(Machine())), results(Workshop(2).row(Machine(), "resnet50")))
    code, _, err = called(capsys, "compare", *files)
    assert code == 2
    assert "no row in common" in err
