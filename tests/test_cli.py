import json
import stat
from pathlib import Path

import pytest
from config_files import MINIMAL, config_file, service_paths
from running import parkwatt, service, stopped

from agent.protocol.keys import load_private_key, load_public_key, write_key_pair
from agent.version import version

REGION = 'ISO 3166-1 alpha-2 ("BR") or with a subdivision ("BR-SP")'
SUPERVISOR_NEVER_IMPORTS = ("numpy", "onnxruntime", "tflite_runtime", "joserfc", "rich")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_key_pair(tmp_path / "keys", "fleet-1")
    return config_file(tmp_path, service_paths(tmp_path))


def test_help_lists_the_commands() -> None:
    done = parkwatt("--help")
    assert done.returncode == 0
    for command in ("run", "check", "status", "tasks", "history", "backends", "demo", "fleet"):
        assert f"  {command} " in done.stdout


def test_the_version_is_the_installed_one() -> None:
    assert parkwatt("--version").stdout == f"parkwatt {version()}\n"


@pytest.mark.parametrize("command", ["run", "check", "status", "tasks", "history"])
def test_a_wrong_configuration_ends_with_2(tmp_path: Path, command: str) -> None:
    path = config_file(tmp_path, "[mqtt]\nprot = 1884\n")
    done = parkwatt(command, "--config", path)
    assert done.returncode == 2
    assert "mqtt.prot: unknown key; did you mean 'port'?" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_each_problem_is_one_line_on_stderr(tmp_path: Path) -> None:
    path = config_file(tmp_path, base=MINIMAL.replace('"BR"', '"Brazil"').replace("60", "-60"))
    done = parkwatt("run", "--config", path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"parkwatt: {path}: vehicle.region = 'Brazil': should be {REGION}",
        f"parkwatt: {path}: backends[0].max_power_w = -60: should be greater than 0",
    ]


def test_the_environment_reaches_the_service(config: Path) -> None:
    done = parkwatt("run", "--config", config, PARKWATT_MQTT__PORT="70000")
    assert done.returncode == 2
    assert done.stderr.startswith("parkwatt: environment PARKWATT_MQTT__PORT: mqtt.port = '70000'")


def test_a_store_that_cannot_be_used_is_one_line_and_1(config: Path) -> None:
    (config.parent / "agent.db").write_text("not a database" * 100)
    done = parkwatt("run", "--config", config)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("parkwatt: store.path ")
    assert "not a database" in line


def test_a_folder_that_is_not_there_is_one_line_and_1(config: Path) -> None:
    (config.parent / "in-the-way").write_text("")
    socket = config.parent / "in-the-way/agent.sock"
    done = parkwatt("run", "--config", config, PARKWATT_CONTROL__SOCKET=str(socket))
    assert done.returncode == 1
    assert "in-the-way" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_service_runs_answers_and_stops_cleanly(config: Path) -> None:
    with service(config.parent, config) as agent:
        text = parkwatt("status", "--config", config)
        document = parkwatt("status", "--config", config, "--json")
        second = parkwatt("run", "--config", config)
        code, log = stopped(agent)
    assert (text.returncode, document.returncode) == (0, 0)
    assert text.stdout.startswith(f"parkwatt {version()}, vehicle veh-0001 in BR, boot 1, started ")
    assert json.loads(document.stdout)["vehicle"] == "veh-0001"
    assert second.returncode == 1
    assert f"in use by process {agent.pid}" in second.stderr
    assert code == 0
    assert "Traceback" not in log
    assert parkwatt("status", "--config", config).returncode == 3


def test_the_supervisor_stays_without_what_it_must_not_load(config: Path) -> None:
    never = ", ".join(map(repr, SUPERVISOR_NEVER_IMPORTS))
    probe = config.parent / "sitecustomize.py"
    probe.write_text(
        "import atexit, sys\n"
        f"atexit.register(lambda: print('LOADED', sorted({{{never}}} & set(sys.modules)), file=sys.stderr))\n"
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(config.parent))
        with service(config.parent, config) as agent:
            _, log = stopped(agent)
    assert [line for line in log.splitlines() if line.startswith("LOADED")] == ["LOADED []"]


def test_without_an_agent_status_ends_with_3(config: Path) -> None:
    done = parkwatt("status", "--config", config)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith("parkwatt: no agent answers: ")
    assert "--config" in line


def test_check_ends_with_1_where_something_is_not_usable(config: Path) -> None:
    (config.parent / "keys/fleet-1.pem").unlink()
    done = parkwatt("check", "--config", config, "--json", PARKWATT_MQTT__PORT="1")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert not report["ok"]
    problems = {finding["part"] for finding in report["findings"] if not finding["ok"]}
    assert problems == {"broker", "keys", "models"}
    assert all(finding["fix"] for finding in report["findings"] if not finding["ok"])
    assert done.stderr == ""


def test_backends_are_listed_for_people_and_programs() -> None:
    text = parkwatt("backends")
    assert text.returncode == 0
    assert "null on null: usable for onnx, tflite\n" in text.stdout
    found = {entry["use"]: entry for entry in json.loads(parkwatt("backends", "--json").stdout)}
    assert found["null"]["devices"] == [{"name": "null", "formats": ["onnx", "tflite"], "why": ""}]


def test_keygen_makes_a_pair_that_the_vehicle_takes_and_never_overwrites_one(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = parkwatt("fleet", "keygen", folder, "--kid", "fleet-7")
    assert made.returncode == 0
    private = load_private_key(folder / "fleet-7.key")
    assert private.verify_key.encode() == load_public_key(folder / "fleet-7.pem")
    assert stat.S_IMODE((folder / "fleet-7.key").stat().st_mode) == 0o600
    again = parkwatt("fleet", "keygen", folder, "--kid", "fleet-7")
    assert again.returncode == 1
    (line,) = again.stderr.splitlines()
    assert "exists" in line


def test_the_command_line_itself_loads_nothing_of_the_service() -> None:
    done = parkwatt("--help", PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not {"pydantic", "aiomqtt", "msgspec", "rich", "asyncio", "agent.settings", "fleet"} & loaded


def test_the_service_is_started_without_the_command_lines_library(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    plain = parkwatt("run", "--config", config, PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rsplit("|", 1)[-1].strip() for line in plain.stderr.splitlines() if "|" in line}
    assert "agent.settings" in loaded
    assert not {"typer", "click", "urllib.request"} & loaded
    by_typer = parkwatt("run", f"--config={config}")
    said = [line for line in plain.stderr.splitlines() if "|" not in line]
    assert (plain.returncode, said) == (by_typer.returncode, by_typer.stderr.splitlines()) == (2, said)
    assert str(config) in said[0]


@pytest.mark.parametrize("arguments", [("run",), ("run", "--help")])
def test_whatever_else_is_said_to_run_is_for_the_command_line(arguments: tuple[str, ...]) -> None:
    done = parkwatt(*arguments)
    assert "Usage" in done.stdout + done.stderr
