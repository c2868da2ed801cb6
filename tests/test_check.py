from collections.abc import Sequence
from pathlib import Path

import pytest
from config_files import MINIMAL, config_file, service_paths
from running import service, stopped

from agent.check.broker import keys as key_finding
from agent.check.disk import store
from agent.check.examine import examine
from agent.check.finding import Finding
from agent.check.person import Person
from agent.check.sources import signal_source
from agent.policy.conditions import required_signals
from agent.policy.settings import PolicySettings
from agent.protocol.keys import write_key_pair
from agent.settings import load
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from fleet.broker import Broker, MosquittoBroker, free_port

ME = Person.asking()


async def examined(config: Path) -> dict[str, Finding]:
    """The last finding of each part."""
    told: list[Finding] = []
    found = await examine(config, told.append)
    assert told == found
    return {finding.part: finding for finding in found}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_key_pair(tmp_path / "keys", "fleet-1")
    (tmp_path / "models").mkdir()
    return tmp_path


async def test_a_car_that_is_set_up_right_has_no_problem(folder: Path, broker: Broker) -> None:
    more = f"[mqtt]\nport = {broker.port}\n" + service_paths(folder)
    found = await examined(config_file(folder, more))
    assert found.pop("limits").text.startswith("first to go when memory runs out, memory 4 GiB, ")
    assert found.pop("software").text.startswith("Python 3.")
    assert found.pop("machine").text.endswith(" UTC, not before the newest signed message")
    assert {part: finding.text for part, finding in found.items() if finding.ok} == {
        "configuration": "can be used",
        "signals": "21 of 21 signals arrive",
        "policy": f"all {len(required_signals(PolicySettings()))} are offered; no source offers what these guards need, so"
        " they do not apply: cable in, region",
        "region": "taken for true: no vehicle.region_file, so the car's position is not compared with it",
        "backends": "usable for onnx, tflite",
        "meter": "no joules are reported, and tasks that limit them are refused",
        "models": "keeps 0 MB of at most 2 GB",
        "store": found["store"].text,
        "control": f"{ME.name} alone may connect once the agent runs",
        "tls": "not set: what goes to 127.0.0.1 can be read on its way",
        "broker": "accepts veh-0001",
        "keys": "1 public key: fleet-1",
    }
    assert not (folder / "agent.db").exists()


async def test_a_signal_that_no_source_offers_is_named_before_the_first_night(folder: Path) -> None:
    scenario = folder / "no_chip.toml"
    scenario.write_text(f'[initial]\n"{vss.SPEED}" = 0\n')
    only_speed = MINIMAL.replace('shim = "scenario"', f'shim = "scenario"\noptions.file = "{scenario}"')
    assert only_speed != MINIMAL
    config = config_file(folder, service_paths(folder))
    config.write_text(config.read_text().replace(MINIMAL, only_speed))
    found = await examined(config)
    assert not found["policy"].ok
    assert vss.CHIP_TEMPERATURE in found["policy"].text
    assert vss.SPEED not in found["policy"].text


async def test_a_wrong_file_is_all_that_is_reported(folder: Path) -> None:
    found = await examined(config_file(folder, "[mqtt]\nprot = 1\n"))
    assert list(found) == ["configuration"]
    assert not found["configuration"].ok
    assert "did you mean 'port'?" in found["configuration"].text


async def test_a_fault_is_told_where_it_is_and_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_file(folder, "[mqtt]\nprot = 1\n")
    (in_file,) = await examine(config, lambda _: None)
    assert (in_file.name, in_file.fix) == (str(config), "correct it in agent.toml")
    assert in_file.text.startswith("mqtt.prot: unknown key")
    (no_file,) = await examine(folder / "nothing.toml", lambda _: None)
    assert no_file.text.startswith("cannot be read: No such file")
    assert "--config" in no_file.fix
    monkeypatch.setenv("PARKWATT_MQTT__PORT", "x")
    (in_environment,) = await examine(config_file(folder), lambda _: None)
    assert in_environment.name == "environment"
    assert in_environment.text.startswith("PARKWATT_MQTT__PORT: mqtt.port = 'x'")
    assert in_environment.fix == "correct or unset that variable"


async def test_a_broker_that_is_down_is_named_with_its_reason(folder: Path) -> None:
    port = free_port()
    found = await examined(config_file(folder, f"[mqtt]\nport = {port}\n" + service_paths(folder)))
    assert not found["broker"].ok
    assert found["broker"].name == f"127.0.0.1:{port}"
    assert "Connect call failed" in found["broker"].text
    assert found["broker"].fix


async def test_a_can_bus_without_its_interface_says_why(folder: Path) -> None:
    can = MINIMAL.replace('shim = "scenario"', 'shim = "can"\nmap = "tesla_model3"')
    options = f'[signals.options]\ninterface = "socketcand"\nhost = "127.0.0.1"\nport = {free_port()}\n'
    base = can.replace("[[backends]]", f'{options}channel = "can0"\n[[backends]]')
    settings = load(config_file(folder, base=base), {})
    (source,) = settings.open_signals(boottime_ns)
    finding, heard = await signal_source(source)
    assert not heard
    assert not finding.ok
    assert finding.text == "no CAN interface: [Errno 111] Connection refused"
    assert finding.fix.startswith("bring the interface up")


def test_a_store_that_a_stranger_holds_is_not_touched(folder: Path) -> None:
    settings = load(config_file(folder, service_paths(folder)), {})
    settings.store.path.write_bytes(b"something else entirely" * 100)
    (finding,) = store(settings, None, ME)
    assert not finding.ok
    assert finding.text.startswith("not a database")
    assert "store.path" in finding.fix
    assert settings.store.path.read_bytes() == b"something else entirely" * 100


def test_a_store_without_its_folder_is_a_problem(folder: Path) -> None:
    settings = load(config_file(folder, service_paths(folder)), {"PARKWATT_STORE__PATH": "/nope/agent.db"})
    (finding,) = store(settings, None, ME)
    assert not finding.ok
    assert "create /nope" in finding.fix


@pytest.mark.parametrize("keys", [(), ("not a key",)])
def test_keys_that_cannot_verify_anything_are_a_problem(tmp_path: Path, keys: Sequence[str]) -> None:
    settings = load(config_file(tmp_path, service_paths(tmp_path)), {})
    assert not key_finding(settings, ME).ok
    settings.trust.task_keys_dir.mkdir()
    for text in keys:
        (settings.trust.task_keys_dir / "fleet.pem").write_text(text)
    assert not key_finding(settings, ME).ok


def test_a_car_that_takes_unsigned_tasks_needs_no_keys(tmp_path: Path) -> None:
    settings = load(config_file(tmp_path), {"PARKWATT_TRUST__REQUIRE_SIGNATURES": "false"})
    assert key_finding(settings, ME).ok


async def test_an_agent_that_runs_keeps_its_store_and_its_broker(
    folder: Path,
    mosquitto: type[MosquittoBroker],
) -> None:
    with mosquitto() as running:
        config = config_file(folder, f"[mqtt]\nport = {running.port}\n" + service_paths(folder))
        with service(folder, config) as agent:
            found = {finding.name: finding for finding in await examine(config, lambda _: None)}
            in_use = found[str(folder / "agent.db")]
            assert in_use.text.startswith("in use by the agent that runs now, 0.1 of 500 MB used")
            assert "the agent that runs now" in found[f"127.0.0.1:{running.port}"].text
            assert found[str(folder / "agent.sock")].text == "the agent that runs now answers"
            code, log = stopped(agent)
    assert code == 0
    assert "taken over" not in log
