"""`parkwatt demo` as a new user runs it."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import PARKWATT, parkwatt

from agent.demo import model

WITHIN_S = 60.0

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("iotcore", "magika", "onnxruntime")),
    reason="needs what the demo installs: iotcore, magika and onnxruntime",
)


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [*PARKWATT, "demo", "--plain", *arguments],
        env=os.environ
        | {"TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: "subprocess.Popen[str]", pattern: str) -> str:
    """Everything that it prints up to and with the first line that fits."""
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if re.search(pattern, line):
            return read
    raise AssertionError(f"it ended without {pattern!r}:\n{read}")


def left_behind(folder: Path) -> list[str]:
    return [
        path.name for path in folder.iterdir() if path.name.startswith(("parkwatt-demo", "parkwatt-iotcore"))
    ]


@pytest.mark.timeout(120)
def test_the_demo_holds_everything_that_it_claims(tmp_path: Path) -> None:
    with demo(tmp_path, "--tasks", "20") as process:
        text, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, text
    assert len(re.findall(r"^ok  ", text, re.MULTILINE)) == 6, text
    assert "FAILED" not in text
    assert re.search(r"^tasks +20 of 20 done$", text, re.MULTILINE)
    assert re.search(r"^rows +272 of 272$", text, re.MULTILINE)
    assert "owner_present" in text
    assert "by model: CPU seconds x 7 W per core; no meter here" in text
    assert re.search(r"^interrupted +demo-", text, re.MULTILINE)
    assert left_behind(tmp_path) == []


@pytest.mark.timeout(120)
def test_a_first_task_by_hand_gets_its_label(tmp_path: Path) -> None:
    if shutil.which("mosquitto_pub") is None:
        pytest.skip("no mosquitto_pub on the PATH")
    with demo(tmp_path, "--tasks", "5", "--hold") as process:
        text = read_until(process, r"Ctrl-C ends the demo")
        command = re.findall(r"mosquitto_pub .*", text)[0]
        message = json.loads(Path(command.split()[-1]).read_text())
        assert message["outputs"] == [{"name": "target_label", "parameters": {"binary_data": False}}]
        subprocess.run(command, shell=True, check=True, timeout=60)  # noqa: S602 - as a person would paste it
        asked = re.search(r"asks what (\S+) is", text)
        assert asked is not None
        answer = read_until(process, r"^result for first-task: \w+ \(.* J by model\)$")
        assert "event for first-task: accepted" in answer
        (tmp_path / "TASK.json").write_text(json.dumps(message | {"id": "second-task"}))
        (shown,) = re.findall(r"parkwatt (fleet submit .*)", text)
        submitted = parkwatt(*shown.replace("TASK.json", str(tmp_path / "TASK.json")).split())
        assert "1 of 1 tasks done, 1 rows" in submitted.stdout, submitted.stderr
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0
    assert left_behind(tmp_path) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_demo_and_everything_that_it_started(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    # who runs these tests in the background may have them ignore SIGINT, which programs that they start would inherit
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with demo(tmp_path, "--seconds", "60") as process:
        signal.signal(signal.SIGINT, before)
        read_until(process, "the first rows are done")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2, "the broker and a worker"
        process.send_signal(number)
        rest, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == code, rest
    assert "Traceback" not in rest
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    assert left_behind(tmp_path) == []


def test_tasks_and_seconds_exclude_each_other() -> None:
    run = parkwatt("demo", "--tasks", "1", "--seconds", "1")
    assert (run.returncode, run.stderr.strip()) == (
        2,
        "parkwatt demo: --tasks and --seconds exclude each other: give one of them",
    )


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = parkwatt("demo", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert run.returncode == 1
    assert run.stderr.startswith(f"parkwatt demo: {tmp_path}/file/parkwatt/models")
    assert "set XDG_CACHE_HOME" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_folder_that_is_full_is_one_line(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: no file may grow, as on a full disk."""
    cache = tmp_path / "cache"
    model.provide(cache / "parkwatt" / "models")
    run = subprocess.run(
        ["sh", "-c", 'ulimit -f 40; exec "$@"', "sh", *PARKWATT, "demo", "--plain", "--tasks", "1"],
        env=os.environ | {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    assert run.stderr.startswith("parkwatt demo: ")
    assert len(run.stderr.splitlines()) == 1


def test_plain_lines_need_no_rich(tmp_path: Path) -> None:
    program = "import sys; import agent.demo.main, agent.demo.play; print('rich' in sys.modules, 'numpy' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert run.stdout.split() == ["False", "False"]
