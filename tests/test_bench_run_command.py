"""`python -m benchmarks run` as a hardware team calls it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.commands.spread import names, spread
from benchmarks.throughput import results

pytest.importorskip("onnx", reason="needs onnx, pip install 'parkwatt[bench]'")
ROOT = Path(__file__).parent.parent
QUICK = ("run", "--backend", "null", "--model", "resnet-50", "--scenario", "single", "--duration-s", "0.5")


def refusal(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The line that is said when a call is wrong."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    *before, line = said.err.splitlines(keepends=True)
    assert all(each.startswith("no meter: ") for each in before)
    return line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--backend", "cpu", "gpu"],
            "backend 'gpu' is not known: take cpu, fault, fsd, null, nvidia, tflite",
        ),
        (["--backend", "no.such:Thing"], "backend 'no.such:Thing' (no.such:Thing) cannot be imported"),
        (["--model", "vgg"], "--model vgg: not known: take all, file-types, text-detector"),
        (
            ["--scenario", "multistream"],
            "--scenario multistream: not known: take single, offline, server, constant",
        ),
        (["--meter", "wattmeter"], "--meter wattmeter: not known: take auto, none, rapl"),
        (["--meter", "hwmon:no/such"], "--meter hwmon:no/such: "),
        (["--batch", "4", "many"], "--batch many: give whole numbers from 1 on"),
        (["--set", "cpu.threads=none"], "--set cpu.threads=none: Input should be a valid integer"),
        (["--set", "cpu.thread=2"], "cpu takes threads, spinning"),
        (["--set", "threads"], "--set threads: give BACKEND.OPTION=VALUE, for example cpu.threads=2"),
        (["--set", "tflite.threads=2"], "--set tflite: is no --backend of this run: cpu"),
    ],
)
def test_a_name_that_is_not_known_is_refused_with_those_that_are(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert says in refusal(["run", "--out", str(out), *arguments], capsys)
    assert not out.exists()


def test_results_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    line = refusal([*QUICK, "--out", str(tmp_path)], capsys)
    assert line == (
        f"--out {tmp_path}: is there and not an empty folder; results are never overwritten: name another\n"
    )
    assert "--out: name a folder" in refusal(QUICK, capsys)


def test_a_folder_that_cannot_be_made_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal([*QUICK, "--meter", "none", "--out", "/proc/version/results"], capsys)
    assert "--out /proc/version/results: Not a directory: name another folder\n" in line


def test_options_take_several_values_with_spaces_and_commas() -> None:
    call = [
        "run",
        "--backend",
        "cpu",
        "tflite",
        "--model",
        "all",
        "--scenario",
        "single",
        "offline",
        "--out",
        "DIR",
        "--quick",
    ]
    assert spread(call, {"--backend", "--model", "--scenario"}) == (
        [
            "run",
            "--backend",
            "cpu",
            "--backend",
            "tflite",
            "--model",
            "all",
            "--scenario",
            "single",
            "--scenario",
            "offline",
            "--out",
            "DIR",
            "--quick",
        ]
    )
    assert names(["cpu,tflite", "fsd", "cpu"]) == ["cpu", "tflite", "fsd"]


def test_the_models_are_listed_with_their_licences(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--model", "list"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert any(line.startswith("voice-activity ") and " MIT " in line for line in lines)


def test_a_run_writes_results_and_a_page_and_tells_its_progress(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *QUICK, "--power-model", "7", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = results.read(out)
    assert not found.partial
    assert [row.key for row in results.measured(found)] == [("resnet-50", "null", "null", "single", 1)]
    assert found.provenance.command[:3] == ("run", "--backend", "null")
    assert found.provenance.cores == os.cpu_count()
    assert found.provenance.versions["parkwatt"]
    assert "resnet-50" in (out / "results.md").read_text()
    assert done.stdout == f"{out}: 1 rows, 0 without figures\n"
    assert "[1/1] null resnet-50 single: " in done.stderr
    assert "inferences/J (model)" in done.stderr


@pytest.fixture
def listening_to_ctrl_c() -> Iterator[None]:
    """Who runs these tests in the background may have them ignore it, which programs that they start would inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening_to_ctrl_c")
def test_ctrl_c_says_where_the_rows_are_that_were_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = [*QUICK[:-1], "60", "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", *call],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline_s = time.monotonic() + 60
        while not (out / results.FILE).exists():
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == f"interrupted: {out} has the rows that were done"
    assert "Traceback" not in said
    assert results.read(out).partial


@pytest.mark.parametrize(
    "name",
    [
        "starts",
        "footprint",
        "tasks",
        "cues",
        "kernels",
        "endurance",
        "durability",
        "stay",
        "car-days",
        "fsd",
        "all",
    ],
)
def test_what_was_measured_before_is_a_command_of_its_own(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert "--quick" in capsys.readouterr().out
