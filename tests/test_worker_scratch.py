"""The folder that a worker may write to: a killed agent cannot remove it, so the next one does."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from backends.scratch import Scratch

KEEPS_ONE = """
import signal
from backends.scratch import Scratch
print(Scratch().path, flush=True)
signal.pause()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_a_killed_agent_left_behind_is_removed_by_the_next(temporary: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KEEPS_ONE], stdout=subprocess.PIPE, text=True, env={"TMPDIR": str(temporary)}
    ) as agent:
        assert agent.stdout is not None
        left_behind = Path(agent.stdout.readline().strip())
        (left_behind / "engine").write_text("large")
        Scratch().cleanup()
        assert (left_behind / "engine").exists(), "its owner lives"
        agent.send_signal(signal.SIGKILL)
    scratch = Scratch()
    assert [str(path) for path in temporary.iterdir()] == [scratch.path]
    scratch.cleanup()
    assert not list(temporary.iterdir())


def test_folders_of_others_are_not_touched(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (temporary / "parkwatt-demo-1").mkdir()
    (temporary / "parkwatt-worker-link").symlink_to(elsewhere)
    (temporary / "parkwatt-worker-file").touch()
    Scratch().cleanup()
    assert {path.name for path in temporary.iterdir()} == {
        "parkwatt-demo-1",
        "parkwatt-worker-link",
        "parkwatt-worker-file",
    }
    assert elsewhere.exists()
