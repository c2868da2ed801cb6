"""deploy/parkwatt.service and its drop-ins, as systemd's own tools and the agent's settings see them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from service_manager import DROP_INS, UNIT, command, settings_of

from agent.refusal import CONFIG_WRONG
from agent.serve import STOP_S
from agent.settings import ControlSettings, ModelSettings, StoreSettings, TrustSettings
from backends.limits import MEMORY_BYTES

EXPOSURE_MOST = 1.5
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
EXAMPLES = sorted(DROP_INS.glob("*.conf.example"))
needs_systemd = pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="no systemd-analyze on the PATH")


def installed(folder: Path, *drop_ins: Path) -> Path:
    """The unit in a folder, with drop-ins switched on, and with a program that is there."""
    unit = folder / UNIT.name
    (began,) = settings_of(UNIT)["ExecStart"]
    unit.write_text(UNIT.read_text().replace(began.split()[0], sys.executable))
    (folder / f"{UNIT.name}.d").mkdir()
    for drop_in in drop_ins:
        shutil.copy(drop_in, folder / f"{UNIT.name}.d" / drop_in.name.removesuffix(".example"))
    return unit


def analyze(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    assert SYSTEMD_ANALYZE is not None
    return subprocess.run(
        [SYSTEMD_ANALYZE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"SYSTEMD_LOG_COLOR": "0", "NO_COLOR": "1", "PATH": "/usr/bin:/bin"},
    )


CASES = [pytest.param((), id="alone"), *(pytest.param((path,), id=path.stem) for path in EXAMPLES)]


@needs_systemd
@pytest.mark.parametrize("drop_ins", CASES)
def test_systemd_finds_nothing_to_say_about_it(tmp_path: Path, drop_ins: tuple[Path, ...]) -> None:
    verdict = analyze("verify", "--man=no", installed(tmp_path, *drop_ins))
    assert (verdict.returncode, verdict.stdout, verdict.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("drop_ins", CASES)
def test_it_is_exposed_little(tmp_path: Path, drop_ins: tuple[Path, ...]) -> None:
    threshold = f"--threshold={EXPOSURE_MOST * 10:g}"
    verdict = analyze("security", "--offline=true", threshold, installed(tmp_path, *drop_ins))
    assert verdict.returncode == 0, verdict.stdout


@needs_systemd
def test_a_drop_in_is_seen_by_these_tests(tmp_path: Path) -> None:
    (drop_in := tmp_path / "bad.conf.example").write_text("[Service]\nWhatIsThat=yes\nPrivateNetwork=no\n")
    (tmp_path / "unit").mkdir()
    assert "WhatIsThat" in analyze("verify", "--man=no", installed(tmp_path / "unit", drop_in)).stderr


def test_there_is_a_drop_in_for_each_kind_of_hardware() -> None:
    names = {path.name.partition(".")[0] for path in EXAMPLES}
    assert {"can", "gpu", "gpio"} <= names
    for path in EXAMPLES:
        assert path.read_text().startswith("# "), f"{path.name} says when it is for"


def test_its_folders_are_those_of_the_configuration() -> None:
    unit = settings_of(UNIT)
    folders = {
        Path("/var/lib", *unit["StateDirectory"]): StoreSettings().path.parent,
        Path("/var/cache", *unit["CacheDirectory"]): ModelSettings().cache_dir,
        Path("/run", *unit["RuntimeDirectory"]): ControlSettings().socket.parent,
        Path("/etc", *unit["ConfigurationDirectory"]): TrustSettings().task_keys_dir.parent,
    }
    assert all(made == wanted for made, wanted in folders.items())


def test_only_a_wrong_configuration_keeps_it_from_being_started_again() -> None:
    unit = settings_of(UNIT)
    assert unit["Restart"] == ["on-failure"]
    assert unit["RestartPreventExitStatus"] == [str(CONFIG_WRONG)]
    assert settings_of(UNIT, "Unit")["StartLimitIntervalSec"] == ["0"]


def test_it_has_the_time_and_the_memory_that_it_needs() -> None:
    unit = settings_of(UNIT)
    assert float(unit["TimeoutStopSec"][0]) > STOP_S
    assert int(unit["MemoryMax"][0].removesuffix("G")) * 1024**3 > MEMORY_BYTES
    assert unit["KillMode"] == ["mixed"], "a worker that systemd ends would count against its model"
    assert unit["OOMPolicy"] == ["continue"], "as would be the end of the agent with its worker"


def test_what_confines_a_worker_is_let_through() -> None:
    allowed = " ".join(settings_of(UNIT)["SystemCallFilter"])
    for name in (
        "landlock_create_ruleset",
        "landlock_add_rule",
        "landlock_restrict_self",
        "seccomp",
        "capset",
    ):
        assert name in allowed


def test_no_dependency_has_it_wait_for_anything() -> None:
    unit = settings_of(UNIT, "Unit")
    assert unit["After"] == ["network.target"], "which nobody waits for (systemd.special(7))"
    assert not {"Requires", "BindsTo", "Wants", "Requisite", "PartOf"} & set(unit)


def test_its_command_is_one_that_the_agent_has(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text("")
    done = subprocess.run(
        command(tmp_path / "agent.toml"), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == CONFIG_WRONG
    assert "vehicle: missing" in done.stderr
