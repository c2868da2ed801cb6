"""What `parkwatt check` finds beside the configuration: the machine, the unit, the disk, certificates, silent signals."""

import datetime as dt
import os
import pwd
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from cars import PARKED_AND_CHARGING, HandSource
from config_files import MINIMAL, config_file, service_paths

from agent.check import machine, packages
from agent.check.broker import keys, tls
from agent.check.certificates import validities
from agent.check.disk import control_socket, store
from agent.check.examine import configuration
from agent.check.finding import Finding
from agent.check.person import ENTER, READ, WRITE, Person
from agent.check.places import model_cache, model_source
from agent.check.sources import guards, signal_source
from agent.check.unit import installed, runs_as, unit_findings
from agent.policy.settings import PolicySettings
from agent.protocol.keys import write_key_pair
from agent.settings import Settings, load
from agent.store import Store
from agent.store.schema import APPLICATION_ID, MIGRATIONS
from backends import landlock
from benchmarks.certificates import Authority
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from firmware_shims.reading import Reading, Sink

ME = Person.asking()
STRANGER = Person("stranger", 4711, frozenset({4711}))
NOW = dt.datetime.now(dt.UTC)
SHIPPED_UNIT = Path(__file__).parent.parent / "deploy/parkwatt.service"
ALL_OVER = {"PARKWATT_STORE__BALLAST_BYTES": "0"}


def settings_in(folder: Path, more: str = "", base: str = MINIMAL, **environ: str) -> Settings:
    return load(config_file(folder, service_paths(folder) + more, base), ALL_OVER | environ)


def problems(findings: list[Finding]) -> list[str]:
    assert all(finding.fix for finding in findings if not finding.ok)
    return [finding.text for finding in findings if not finding.ok]


# Signals


@dataclass
class Mumbling(HandSource):
    """A source from which not everything comes that its map promises."""

    silent: frozenset[str] = frozenset()

    def run(self, sink: Sink, stop: threading.Event) -> None:
        sink.update(
            [
                Reading(path, value, self.name, boottime_ns())
                for path, value in PARKED_AND_CHARGING.items()
                if path not in self.silent
            ]
        )
        stop.wait()


async def test_a_required_signal_that_does_not_come_is_named_though_a_source_offers_it() -> None:
    source = Mumbling(silent=frozenset({vss.CHIP_TEMPERATURE, vss.DRIVER_SEAT}))
    finding, heard = await signal_source(source)
    count = len(PARKED_AND_CHARGING)
    assert finding.ok
    assert finding.text.startswith(f"{count - 2} of {count} signals arrive; not in 4 s: {vss.DRIVER_SEAT}, ")
    (missing,) = guards(PolicySettings(), [source], {source.name: heard})
    assert missing.text == f"{vss.CHIP_TEMPERATURE} did not come in 4 s: no work is allowed without"
    other = HandSource("other", {vss.CHIP_TEMPERATURE: 1.0})
    (enough,) = guards(
        PolicySettings(), [source, other], {source.name: heard, "other": frozenset({vss.CHIP_TEMPERATURE})}
    )
    assert enough.ok


# Certificates


def tls_settings(folder: Path, days: tuple[float, float]) -> Settings:
    authority = Authority(folder)
    certificate, key = authority.issue("veh-0001", days=days)
    files = f'ca_file = "{authority.path}"\ncert_file = "{certificate}"\nkey_file = "{key}"\n'
    return settings_in(folder, f"[mqtt]\n{files}")


@pytest.mark.parametrize(
    ("days", "says"),
    [
        ((-10, 40), "mqtt.cert_file holds until {ends}, 39 days"),
        ((-10, -2), "mqtt.cert_file has expired on {ends}"),
        ((3, 40), "mqtt.cert_file holds from {begins}"),
    ],
)
def test_a_certificate_says_until_when_it_holds(tmp_path: Path, days: tuple[float, float], says: str) -> None:
    found = {
        finding.name: finding for finding in tls(tls_settings(tmp_path, days), ME, dt.datetime.now(dt.UTC))
    }
    begins, ends = (f"{NOW + dt.timedelta(days=day):%Y-%m-%d}" for day in days)
    vehicle = found[str(tmp_path / "veh-0001.pem")]
    assert vehicle.text.startswith(says.format(begins=begins, ends=ends))
    assert vehicle.ok is (days[0] < 0 < days[1])
    assert found[str(tmp_path / "ca.pem")].ok


def test_a_key_of_another_certificate_is_found_before_the_broker_refuses_it(tmp_path: Path) -> None:
    settings = tls_settings(tmp_path, (-1, 1))
    _, other = Authority(tmp_path, "ca-2").issue("other")
    (tmp_path / "veh-0001.key").write_bytes(other.read_bytes())
    (finding,) = tls(settings, ME, NOW)
    assert "KEY_VALUES_MISMATCH" in finding.text
    assert finding.fix


def test_a_key_that_the_agents_user_cannot_read_is_found_by_root_too(tmp_path: Path) -> None:
    settings = tls_settings(tmp_path, (-1, 1))
    told = problems(list(tls(settings, STRANGER, NOW)))
    assert f"{STRANGER.name} cannot read mqtt.key_file" in told


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match="no certificate"):
        validities(broken)


@pytest.mark.parametrize("year", [1999, 2049, 2050, 2090])
def test_dates_of_both_forms_are_read(tmp_path: Path, year: int) -> None:
    days = (dt.datetime(year, 6, 1, tzinfo=dt.UTC) - NOW).days
    certificate, _ = Authority(tmp_path).issue("veh", days=(days - 1, days))
    (found,) = validities(certificate)
    assert abs(found.ends - NOW - dt.timedelta(days=days)) < dt.timedelta(minutes=5)


# Who runs it


def test_a_file_is_for_whom_its_mode_says(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    file.chmod(0o640)
    owner = Person("owner", os.getuid() or 1, frozenset())
    os.chown(file, owner.uid, os.getgid())
    reachable = owner.may(tmp_path, ENTER)
    assert owner.may(file, READ | WRITE) is reachable
    assert not Person("member", 4711, frozenset({os.getgid()})).may(file, WRITE)
    assert not STRANGER.may(file, READ)
    assert not ME.may(tmp_path / "missing", READ)


def test_a_configuration_that_the_agents_user_cannot_read_is_found_by_root_too(tmp_path: Path) -> None:
    config = config_file(tmp_path)
    config.chmod(0o600)
    assert configuration(config, ME).ok
    assert configuration(config, STRANGER).fix.endswith(f"chmod 0640 {config}")


# The disk


async def test_a_store_is_told_with_its_version_and_its_room(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with Store.open(settings.store.path, max_bytes=1_000_000):
        pass
    state, room = store(settings, None, ME)
    assert state.text == f"whole, of schema version {len(MIGRATIONS)}"
    assert room.ok is (int(room.text.split()[0]) > 500)


def test_an_older_store_is_not_brought_forward_by_looking_at_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with closing(sqlite3.connect(settings.store.path)) as connection:
        for statements in MIGRATIONS[:3]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 3")
    before = settings.store.path.read_bytes()
    state, _ = store(settings, None, ME)
    assert (
        state.text == f"whole, of schema version 3, which the next start brings forward to {len(MIGRATIONS)}"
    )
    assert settings.store.path.read_bytes() == before
    assert not settings.store.path.with_name("agent.db.lock").exists()


def test_a_store_without_room_on_its_disk_is_a_problem(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, PARKWATT_STORE__MAX_BYTES=str(10**18))
    assert "MB free on its disk" in problems(list(store(settings, None, ME)))[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
async def test_a_store_of_somebody_else_is_a_problem(tmp_path: Path) -> None:
    """As `sudo parkwatt run` leaves one behind."""
    settings = settings_in(tmp_path)
    async with Store.open(settings.store.path, max_bytes=1_000_000):
        pass
    os.chown(settings.store.path, STRANGER.uid, -1)
    (finding,) = store(settings, None, ME)
    assert finding.text == f"belongs to {STRANGER.uid}, the agent runs as {ME.name}"
    assert finding.fix.startswith(f"chown {ME.name}: ")


def test_a_control_socket_needs_a_folder_and_no_file_in_its_place(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert control_socket(settings, None, ME).ok
    settings.control.socket.write_text("something")
    assert control_socket(settings, None, ME).text == "is no socket"
    assert not control_socket(settings, None, STRANGER).ok


def test_a_folder_that_the_unit_makes_when_it_starts_need_not_be_there(tmp_path: Path) -> None:
    """/run/parkwatt comes and goes with the service."""
    unit = tmp_path / "etc/systemd/system/parkwatt.service"
    unit.parent.mkdir(parents=True)
    unit.write_bytes(SHIPPED_UNIT.read_bytes())
    shipped = installed(tmp_path)
    assert shipped is not None
    assert Path("/run/parkwatt") in shipped.folders
    gone = tmp_path / "run/parkwatt"
    settings = settings_in(tmp_path, PARKWATT_CONTROL__SOCKET=str(gone / "agent.sock"))
    assert not control_socket(settings, None, STRANGER).ok
    assert control_socket(settings, None, STRANGER, [gone]).text == f"the unit makes {gone} when it starts"


async def test_models_need_their_folder_and_room_in_the_cache(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    finding = await model_source(settings.models, ME)
    assert finding.text == f"is no folder that {ME.name} can read"
    (tmp_path / "models").mkdir()
    assert (await model_source(settings.models, ME)).ok
    assert model_cache(settings.models, ME).ok
    greedy = settings_in(tmp_path, PARKWATT_MODELS__CACHE_MAX_BYTES=str(10**18))
    assert "models.cache_max_bytes may need" in model_cache(greedy.models, ME).text


# The machine


def test_a_clock_that_shows_what_has_passed_is_a_problem() -> None:
    assert machine.clock(NOW.timestamp(), NOW.timestamp() - 60).ok
    early = machine.clock(0.0, 0.0)
    assert early.text.startswith("it shows 1970-01-01 00:00:00 UTC, and 2026-01-01 00:00 has passed")
    assert early.fix
    assert not machine.clock(NOW.timestamp() - 86_400, NOW.timestamp()).ok


def test_a_kernel_without_confinement_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none() -> int:  # what a kernel says that was built without it
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(landlock, "abi", none)
    monkeypatch.setattr(machine, "SECCOMP", tmp_path / "missing")
    found = list(machine.confinement())
    assert [finding.name for finding in found] == ["Landlock", "seccomp"]
    assert len(problems(found)) == 2


@pytest.mark.parametrize(
    ("version", "bounds", "problem"),
    [
        ("2.5.1", ">=2.5,<3", ""),
        ("2.5", ">=2.5.0,<3", ""),
        ("3.0.0", ">=2.5,<3", "3.0.0 is installed, <3 is needed"),
        ("2.4.9", ">=2.5,<3", "2.4.9 is installed, >=2.5 is needed"),
        ("1.0.3.post1", "==1.0.3", ""),
    ],
)
def test_a_package_of_a_wrong_version_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str, bounds: str, problem: str
) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    monkeypatch.setattr(metadata, "requires", lambda _: [f"aiomqtt[extra]{bounds}", 'x; extra == "dev"'])
    (found,) = packages.packages()
    assert (found.name, found.problem) == ("aiomqtt", problem)


def test_what_is_installed_here_fits() -> None:
    assert [package.problem for package in packages.packages()] == [""] * len(packages.packages())
    (finding,) = machine.software()
    assert "msgspec" in finding.text


def test_two_wheels_of_one_import_package_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "99")
    assert any(
        "onnxruntime and onnxruntime-gpu are both installed" in text
        for text in problems(list(machine.software()))
    )


# The unit


@pytest.fixture
def root(tmp_path: Path) -> Path:
    unit = tmp_path / "root/etc/systemd/system/parkwatt.service"
    unit.parent.mkdir(parents=True)
    program = tmp_path / "root/opt/parkwatt"
    program.parent.mkdir(parents=True)
    program.touch()
    user = pwd.getpwuid(os.getuid()).pw_name
    text = SHIPPED_UNIT.read_text().replace("User=parkwatt", f"User={user}")
    unit.write_text(text.replace("/opt/parkwatt/current/bin/parkwatt", str(program)))
    return tmp_path / "root"


IN_PLACE = {
    "PARKWATT_STORE__PATH": "/var/lib/parkwatt/agent.db",
    "PARKWATT_MODELS__CACHE_DIR": "/var/cache/parkwatt",
    "PARKWATT_CONTROL__SOCKET": "/run/parkwatt/agent.sock",
}
CONFIG = Path("/etc/parkwatt/agent.toml")


def about(root: Path, settings: Settings, config: Path = CONFIG) -> list[Finding]:
    unit = installed(root)
    assert unit is not None
    return list(unit_findings(unit, config, settings))


def test_the_shipped_unit_fits_a_configuration_in_its_own_folders(root: Path, tmp_path: Path) -> None:
    (finding,) = about(root, settings_in(tmp_path, **IN_PLACE))
    assert finding.ok
    assert runs_as(installed(root)) == ME


def test_without_a_unit_there_is_nothing_to_say_of_it(tmp_path: Path) -> None:
    assert installed(tmp_path) is None
    assert runs_as(None) == ME


def test_a_store_where_the_unit_cannot_write_is_a_problem(root: Path, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, **(IN_PLACE | {"PARKWATT_STORE__PATH": "/data/agent.db"}))
    assert problems(about(root, settings)) == [
        "store.path lies in /data, which ProtectSystem=strict makes read-only"
    ]
    drop_in(root, "data", "ReadWritePaths=/data")
    assert not problems(about(root, settings))


def drop_in(root: Path, name: str, line: str) -> None:
    folder = root / "etc/systemd/system/parkwatt.service.d"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.conf").write_text(f"[Service]\n{line}\n")


def test_a_can_bus_needs_its_drop_in(root: Path, tmp_path: Path) -> None:
    can = MINIMAL.replace('shim = "scenario"', 'shim = "can"\nmap = "tesla_model3"')
    options = '[signals.options]\ninterface = "socketcan"\nchannel = "can0"\n'
    settings = settings_in(tmp_path, base=can.replace("[[backends]]", f"{options}[[backends]]"), **IN_PLACE)
    (finding,) = about(root, settings)
    assert finding.text == "RestrictAddressFamilies leaves out AF_CAN, and a source listens to socketcan"
    shipped = SHIPPED_UNIT.with_name("parkwatt.service.d") / "can.conf.example"
    assert f"{SHIPPED_UNIT.name}.d/{shipped.name} " in finding.fix
    drop_in(root, "can", shipped.read_text())
    assert not problems(about(root, settings))


def test_a_gpu_needs_its_drop_in(root: Path, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, base=MINIMAL.replace('use = "null"', 'use = "nvidia"'), **IN_PLACE)
    (finding,) = about(root, settings)
    assert finding.text == "PrivateDevices hides the GPU of the nvidia backend"
    shipped = SHIPPED_UNIT.with_name("parkwatt.service.d") / "gpu.conf.example"
    drop_in(root, "gpu", shipped.read_text())
    assert not problems(about(root, settings))


def edited(root: Path, edit: Callable[[str], str]) -> None:
    unit = root / "etc/systemd/system/parkwatt.service"
    unit.write_text(edit(unit.read_text()))


def test_a_unit_that_starts_something_else_is_a_problem(root: Path, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, **IN_PLACE)
    other = tmp_path / "agent.toml"
    assert problems(about(root, settings, other)) == [f"starts with {CONFIG}, not with {other}"]
    edited(root, lambda text: text.replace("User=", "User=nobody-has-this-name-"))
    edited(root, lambda text: text.replace("ExecStart=/", "ExecStart=/nowhere/"))
    missing, user = problems(about(root, settings))
    assert missing.endswith("is not there")
    assert "is not a user of this computer" in user
    assert runs_as(installed(root)) == ME


def test_keys_that_the_agents_user_cannot_read_are_found_by_root_too(tmp_path: Path) -> None:

    write_key_pair(tmp_path / "keys", "fleet-1")
    settings = settings_in(tmp_path)
    assert keys(settings, ME).ok
    key = tmp_path / "keys/fleet-1.pem"
    key.chmod(0o600)
    finding = keys(settings, STRANGER)
    assert (finding.name, finding.text) == (str(key), f"{STRANGER.name} cannot read it")
    assert finding.fix.startswith(f"chgrp {STRANGER.name} {key}, chmod 0640 {key}")
