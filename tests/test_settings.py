import re
import tomllib
from pathlib import Path

import pytest
from config_files import MINIMAL, config_file
from pydantic import ValidationError

from agent.policy.settings import PolicySettings
from agent.settings import ConfigError, Settings, load
from firmware_shims.clock import boottime_ns

FIX = "give the path of a readable file"
EXAMPLE = Path(__file__).parents[1] / "deploy/agent.toml"

WITHOUT_A_DEFAULT = (
    "username|password_file|ca_file|cert_file|key_file|watts_per_core|group"
    "|stay_prior_file|region_file|grid_limit_w|schedule|time_zone|cores"
)


def problems(path: Path, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        load(path, environ)
    return refused.value.problems


def test_a_short_file_is_enough_and_the_rest_has_its_documented_default(tmp_path: Path) -> None:
    settings = load(config_file(tmp_path), {})
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.root) == ("127.0.0.1", 1883, "fleet/v1")
    assert (settings.mqtt.keepalive_s, settings.mqtt.receive_maximum) == (30, 64)
    assert settings.mqtt.max_payload_bytes == 131_072
    assert (settings.tasks.queue_s, settings.tasks.queue_tasks) == (10, 64)
    assert settings.tasks.queue_bytes == 16_777_216
    assert settings.models.source == "file:///var/lib/parkwatt/models"
    assert settings.models.cache_dir == Path("/var/cache/parkwatt")
    assert settings.models.cache_max_bytes == 2_000_000_000
    assert settings.trust.require_signatures
    assert settings.trust.task_keys_dir == Path("/etc/parkwatt/keys")
    assert settings.store.path == Path("/var/lib/parkwatt/agent.db")
    assert settings.store.max_bytes == 500_000_000
    assert settings.control.socket == Path("/run/parkwatt/agent.sock")
    assert settings.policy.settle_s == 60
    assert settings.meter.use == "none"


def test_every_commented_default_of_the_shipped_example_is_the_real_default() -> None:
    text = EXAMPLE.read_text()
    commented = "".join(
        line.removeprefix("# ") + "\n" if re.match(r"# \w+ = ", line) else line + "\n"
        for line in text.splitlines()
        if not re.match(rf"# ({WITHOUT_A_DEFAULT}) = ", line)
    )
    assert commented.count("\n# ") < text.count("\n# ") - 30
    assert Settings.model_validate(tomllib.loads(commented)) == Settings.model_validate(tomllib.loads(text))


def test_a_vehicle_may_compute_in_its_own_country_unless_told_otherwise(tmp_path: Path) -> None:
    city = MINIMAL.replace('"BR"', '"BR-SP"')
    assert load(config_file(tmp_path, base=city), {}).trust.residency == ("BR",)
    told = load(config_file(tmp_path, '[trust]\nresidency = ["AR", "UY"]\n'), {})
    assert told.trust.residency == ("AR", "UY")


def test_the_environment_overrides_any_key(tmp_path: Path) -> None:
    path = config_file(tmp_path, "[mqtt]\nport = 1999\nroot = 'a/b'\n")
    settings = load(
        path,
        {
            "PARKWATT_MQTT__PORT": "1884",
            "PARKWATT_TRUST__RESIDENCY": '["AR"]',
            "PARKWATT_POLICY__PACK_START_C": "[6, 30]",
            "PARKWATT_TRUST__REQUIRE_SIGNATURES": "false",
            "PARKWATT_VEHICLE__REGION": "DE",
            "HOME": "/root",
        },
    )
    assert (settings.mqtt.port, settings.mqtt.root) == (1884, "a/b")
    assert settings.trust.residency == ("AR",)
    assert list(settings.policy.pack_start_c) == [6, 30]
    assert not settings.trust.require_signatures
    assert settings.vehicle.country == "DE"


def test_nothing_is_read_from_the_environment_unless_it_is_passed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARKWATT_MQTT__PORT", "1884")
    assert load(config_file(tmp_path), {}).mqtt.port == 1883


def test_an_unknown_key_is_named_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = config_file(tmp_path, "[mqtt]\nprot = 1884\n[polcy]\nsettle_s = 1\n")
    assert problems(path) == (
        f"{path}: mqtt.prot: unknown key; did you mean 'port'?",
        f"{path}: polcy: unknown key; did you mean 'policy'?",
    )


def test_every_problem_is_one_line_with_file_key_value_and_limit(tmp_path: Path) -> None:
    path = config_file(
        tmp_path,
        '[mqtt]\nport = 70000\nroot = "a//b"\npassword_file = "/nope"\n[store]\nmax_bytes = 5\n',
        base=MINIMAL.replace('"veh-0001"', '"veh 1"'),
    )
    assert problems(path) == (
        f"{path}: vehicle.id = 'veh 1': should be 1-64 of A-Z a-z 0-9 _ -",
        f"{path}: mqtt.port = 70000: should be less than or equal to 65535",
        f"{path}: mqtt.root = 'a//b': should be 1-5 levels of A-Z a-z 0-9 _ . - (\"fleet/v1\")",
        f"{path}: mqtt.password_file = '/nope': cannot be read (No such file or directory): {FIX}",
        f"{path}: store.max_bytes = 5: should be greater than or equal to 1000000",
    )


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("[meter]\nuse = 'model'\n", "meter.options.watts_per_core: missing; add it"),
        (
            "[meter]\nuse = 'model'\n[meter.options]\nwatts_per_core = nan\n",
            "watts_per_core = nan: should be a finite number",
        ),
        (
            "[meter.options]\nwatts_per_core = 4\n",
            "meter.options: options are for a meter: name it in meter.use",
        ),
        ("[mqtt]\nca_file = '/dev/null'\ncert_file = '/dev/null'\n", "cert_file and key_file go together"),
        ("[mqtt]\ncert_file = '/dev/null'\nkey_file = 'SECRET'\n", "cert_file without ca_file"),
        ("[mqtt]\npassword_file = 'SECRET'\n", "password_file without username"),
        ("[models]\nsource = 'ftp://host/models'\n", "should be file:///a/folder or https://host/path"),
        ("[trust]\nresidency = []\n", "trust.residency = []: should have at least one entry"),
        ("[trust]\nresidency = ['brazil']\n", "trust.residency[0] = 'brazil': should be ISO 3166-1"),
        (f"[control]\nsocket = '/{'x' * 120}'\n", "at most 107 bytes"),
        ("[policy]\nsoc_stop_pct = 50\n", "policy: the guards must satisfy soc_floor_pct <="),
        (
            "[backends.options]\nrun_sm = 5\n",
            "backends[0].options.run_sm: unknown key; did you mean 'run_us'?",
        ),
        ("[backends.options]\nrun_us = -5\n", "backends[0].options.run_us = -5: should be greater than"),
        (
            "[[backends]]\nuse = 'cpux'\nmax_power_w = 1\n",
            "backends[1].use = 'cpux': backend 'cpux' is not known",
        ),
        ("[[backends]]\nuse = 'null'\nmax_power_w = 1\n", "merge the entries of 'null'"),
        ("[[backends]]\nuse = 'cpu'\n", "backends[1].max_power_w: missing; add it"),
        ("[[signals]]\nshim = 'cna'\n", "signals[1]: shim = 'cna' is unknown; known: can"),
        ("[[signals]]\nshim = 'can'\n", "map is missing: give a path, or one of: tesla_model3"),
        ("[[signals]]\nshim = 'can'\nmap = '/nope.toml'\n", "/nope.toml"),
        ('["a\\nb"]\n', "'a\\nb': unknown key"),
    ],
)
def test_a_wrong_setting_says_what_is_wrong_with_it(tmp_path: Path, more: str, problem: str) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    path = config_file(tmp_path, more.replace("SECRET", str(secret)))
    (line,) = problems(path)
    assert line.startswith(f"{path}: ")
    assert problem in line
    assert "\n" not in line


def test_a_store_too_small_for_its_results_is_refused_in_one_line(tmp_path: Path) -> None:
    """It could fill up for good."""
    small = config_file(tmp_path, "[store]\nmax_bytes = 1_000_000\n[mqtt]\nmax_payload_bytes = 1_000_000\n")
    (problem,) = problems(small)
    assert (
        "keeps 500000 bytes for results, which should be 3 times mqtt.max_payload_bytes = 1000000" in problem
    )


def test_a_car_without_signals_or_backends_is_refused(tmp_path: Path) -> None:
    path = config_file(tmp_path, base="signals = []\n" + MINIMAL.split("[[signals]]")[0])
    assert problems(path) == (
        f"{path}: signals = []: should have at least one entry",
        f"{path}: backends: missing; add it",
    )


def test_a_fault_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    found = problems(
        config_file(tmp_path),
        PARKWATT_MQTT__PORT="70000",
        PARKWATT_MQTT_PORT="1884",
        PARKWATT_MQTT__PROT="1884",
        PARKWATT_SIGNALS="[]",
        PARKWATT_TRUST__RESIDENCY="BR",
    )
    fix = "an override is PARKWATT_SECTION__KEY; correct or unset it"
    assert set(found) == {
        "environment PARKWATT_MQTT__PORT: mqtt.port = '70000': should be less than or equal to 65535",
        f"environment PARKWATT_MQTT_PORT: no such section; {fix}",
        "environment PARKWATT_MQTT__PROT: mqtt.prot: unknown key; did you mean 'port'?",
        "environment PARKWATT_SIGNALS: an array of tables cannot be overridden; unset it and edit the file",
        "environment PARKWATT_TRUST__RESIDENCY = 'BR': not JSON; give a JSON value, for example [1, 2]",
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[vehicle]\nid =\n", "at line 2"),
        (b"a = 1\n\xff", "not UTF-8 at line 2"),
        (b"a = " + b"[" * 5_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_toml_names_its_line(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(content)
    (line,) = problems(path)
    assert line.startswith(f"{path}: ")
    assert problem in line


def test_a_missing_file_is_a_line_and_not_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "nope.toml"
    assert problems(path) == (f"{path}: cannot be read: No such file or directory; give an existing file",)


def test_settings_do_not_change_after_they_were_read(tmp_path: Path) -> None:
    settings = load(config_file(tmp_path), {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.mqtt.port = 1


def test_two_sources_of_one_kind_have_names_of_their_own(tmp_path: Path) -> None:
    settings = load(config_file(tmp_path, '[[signals]]\nshim = "scenario"\n'), {})
    assert [source.name for source in settings.open_signals(boottime_ns)] == ["scenario", "scenario-2"]


def test_the_example_names_every_guard() -> None:
    section = EXAMPLE.read_text().split("[policy]")[1].split("[[backends]]")[0]
    named = {line.removeprefix("# ").split(" = ")[0] for line in section.splitlines() if " = " in line}
    assert named == set(PolicySettings.model_fields)


def test_a_prior_of_the_fleet_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    prior = tmp_path / "stay.json"
    prior.write_text("{}")
    (problem,) = problems(config_file(tmp_path), PARKWATT_VEHICLE__STAY_PRIOR_FILE=str(prior))
    assert "vehicle.stay_prior_file" in problem.lower() or "VEHICLE__STAY_PRIOR_FILE" in problem
    assert "is no prior" in problem
