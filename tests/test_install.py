"""deploy/install.sh in a fresh root folder, as for a vehicle's image; packages come from this environment, not from an index."""

import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_store_upgrade import laid, schema_of
from wheelhouse import ROOT, pack, pack_parkwatt

from agent.store.schema import MIGRATIONS

WITHIN_S = 60.0
CONFIG, UNIT = "etc/parkwatt/agent.toml", "etc/systemd/system/parkwatt.service"
STORE, CURRENT = "var/lib/parkwatt/agent.db", "opt/parkwatt/current"
IS_ROOT = os.geteuid() == 0

pytestmark = [
    pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="no systemd-sysusers here"),
    pytest.mark.timeout(240),
]


@dataclass(frozen=True, slots=True)
class Site:
    """What a vehicle maker has: `deploy`, a copy of the folder of that name, wheels, and the image's root."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def deploy(self) -> Path:
        return self.folder / "deploy"

    @property
    def wheels(self) -> Path:
        return self.folder / "wheels"

    def run(self, *options: str | Path) -> subprocess.CompletedProcess[str]:
        script = [self.deploy / "install.sh", "--root", self.root, *options]
        return subprocess.run(
            [*map(str, script)], capture_output=True, text=True, timeout=WITHIN_S, check=False
        )

    def install(self, version: str = "0.1.0", **changed: str) -> subprocess.CompletedProcess[str]:
        """Install that version; `changed` files of it by their stem."""
        files = {f"agent/{stem}.py": text for stem, text in changed.items()}
        wheel = pack_parkwatt(self.folder, version, files)
        return self.run(
            *("--from", wheel, "--wheels", self.wheels, "--extras", "can", "--python", sys.executable)
        )

    @property
    def releases(self) -> list[str]:
        """Their versions, hidden folders too."""
        return sorted(path.name.partition("-")[0] for path in (self.root / "opt/parkwatt/releases").iterdir())

    @property
    def version(self) -> str:
        """What the program that the unit starts says of itself."""
        answer = subprocess.run(
            [self.root / CURRENT / "bin/python", "-I", "-m", "agent", "--version"],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=True,
        )
        return answer.stdout.strip()


@pytest.fixture(scope="module")
def first_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """An image that parkwatt has been installed into once."""
    site = Site(tmp_path_factory.mktemp("site"))
    shutil.copytree(ROOT / "deploy", site.deploy)
    shutil.copy(ROOT / "constraints.txt", site.folder)
    site.root.mkdir()
    site.wheels.mkdir()
    pack(site.wheels, ["can"])
    done = site.install()
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return site


@pytest.fixture
def site(first_site: Site, tmp_path: Path) -> Site:
    """A copy of it, to be changed."""
    shutil.copytree(first_site.folder, tmp_path / "site", symlinks=True)
    return Site(tmp_path / "site")


def everything_in(root: Path) -> dict[str, tuple[int, object]]:
    """Mode and content of each path."""
    found: dict[str, tuple[int, object]] = {}
    for path in sorted(root.rglob("*")):
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (path.lstat().st_mode, content)
    return found


def test_the_unit_finds_its_program_and_its_configuration(first_site: Site) -> None:
    (command,) = re.findall(r"(?m)^ExecStart=(.*)$", (first_site.root / UNIT).read_text())
    program, *arguments = command.split()
    script = first_site.root / program.lstrip("/")
    assert os.access(script, os.X_OK)
    interpreter = script.read_text().splitlines()[0].removeprefix("#!")
    assert interpreter.startswith("/opt/parkwatt/releases/"), (
        "a place in the image, not the one it was built at"
    )
    assert (first_site.root / interpreter.lstrip("/")).exists()
    assert arguments[:2] == ["run", "--config"]
    assert (first_site.root / arguments[2].lstrip("/")).read_text() == (
        ROOT / "deploy/agent.toml"
    ).read_text()


def test_the_place_it_was_built_at_is_forgotten(first_site: Site) -> None:
    built_at = str(first_site.root).encode()
    bodies = {
        name: body for name, (_, body) in everything_in(first_site.root).items() if isinstance(body, bytes)
    }
    assert [name for name, body in bodies.items() if built_at in body] == []


def test_an_agent_of_the_fresh_root_gets_ready(first_site: Site, tmp_path: Path) -> None:
    with running(first_site, tmp_path):
        assert (tmp_path / "agent.sock").is_socket()


@contextmanager
def running(site: Site, folder: Path) -> Iterator[None]:
    """An agent of the installed release with the configuration that was laid; what it writes lies in `folder`."""
    environment = {
        "PATH": os.environ["PATH"],
        "NOTIFY_SOCKET": str(folder / "notify"),
        "PARKWATT_STORE__PATH": str(folder / "agent.db"),
        "PARKWATT_MODELS__CACHE_DIR": str(folder / "cache"),
        "PARKWATT_CONTROL__SOCKET": str(folder / "agent.sock"),
        "PARKWATT_MQTT__PORT": "1",
    }
    interpreter, config = site.root / CURRENT / "bin/python", site.root / CONFIG
    command = [str(interpreter), "-I", "-m", "agent", "run", "--config", str(config)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(environment["NOTIFY_SOCKET"])
        notified.settimeout(WITHIN_S)
        with subprocess.Popen(command, env=environment) as process:
            try:
                while b"READY=1" not in notified.recv(1000).split(b"\n"):
                    continue
                yield
            finally:
                process.terminate()


@pytest.mark.skipif(not IS_ROOT, reason="only root can give files to another user")
def test_only_the_agents_user_reads_configuration_and_store(first_site: Site) -> None:
    passwd = (first_site.root / "etc/passwd").read_text()
    (user, group, shell) = re.findall(r"(?m)^parkwatt:x:(\d+):(\d+):.*:(\S+)$", passwd)[0]
    assert shell.endswith("nologin")
    for place, owner, mode in (
        ("etc/parkwatt", 0, 0o750),
        ("etc/parkwatt/keys", 0, 0o750),
        (CONFIG, 0, 0o640),
        ("var/lib/parkwatt", int(user), 0o750),
        ("var/lib/parkwatt/models", int(user), 0o750),
        ("var/cache/parkwatt", int(user), 0o750),
    ):
        found = (first_site.root / place).stat()
        assert (found.st_uid, found.st_gid) == (owner, int(group)), place
        assert stat.S_IMODE(found.st_mode) == mode, place


def test_a_second_run_changes_nothing_and_a_file_that_somebody_has_edited_stays(site: Site) -> None:
    before = everything_in(site.root)
    done = site.install()
    assert done.returncode == 0, done.stderr
    assert everything_in(site.root) == before
    for what in ("the release 0.1.0", f"/{CONFIG}", f"/{UNIT}", f"/{CURRENT}", "/usr/local/bin/parkwatt"):
        assert f"unchanged: {what}" in done.stdout

    shipped, here = site.deploy / "parkwatt.service", site.root / UNIT
    shipped.write_text(shipped.read_text() + "# newer\n")
    assert f"replaced: /{UNIT}" in site.install().stdout
    assert here.read_text().endswith("# newer\n")
    edited = here.read_text() + "# mine\n"
    here.write_text(edited)
    assert f"kept: /{UNIT}, which you have edited" in site.install().stdout
    assert here.read_text() == edited


def test_a_dry_run_changes_nothing(site: Site) -> None:
    before = everything_in(site.root)
    assert "would build the release 0.2.0" in run_dry(site, "0.2.0")
    assert "removed: /opt/parkwatt" in site.run("--uninstall", "--purge", "--dry-run").stdout
    assert everything_in(site.root) == before


def run_dry(site: Site, version: str) -> str:
    wheel = pack_parkwatt(site.folder, version)
    done = site.run("--from", wheel, "--dry-run", "--python", sys.executable)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_upgrade_keeps_store_and_configuration_and_the_releases_that_are_still_wanted(
    site: Site, tmp_path: Path
) -> None:
    laid(site.root / STORE, 1)
    before = (site.root / STORE).read_bytes()
    example = site.deploy / "agent.toml"
    example.write_text(example.read_text() + "# one key more\n")
    assert site.version == "parkwatt 0.1.0"
    with running(site, tmp_path):
        (site.root / CONFIG).write_text('[vehicle]\nid = "veh-7"\n')
        done = site.install("0.2.0")
        assert done.returncode == 0, done.stderr
        assert site.version == "parkwatt 0.2.0"
        assert (site.root / STORE).read_bytes() == before, "the new agent upgrades it, when it starts"
        assert (site.root / CONFIG).read_text() == '[vehicle]\nid = "veh-7"\n'
        assert "which you have edited; the new one is /etc/parkwatt/agent.toml.new" in done.stdout
        assert (site.root / f"{CONFIG}.new").read_text().endswith("# one key more\n")
        assert site.releases == ["0.1.0", "0.2.0"], "one can go back"

        assert "kept: the release 0.1.0" in site.install("0.3.0").stdout
        assert site.releases == ["0.1.0", "0.2.0", "0.3.0"], (
            "the agent that runs starts its workers from there"
        )
    assert "removed: the release 0.1.0" in site.install("0.3.0").stdout
    assert site.releases == ["0.2.0", "0.3.0"], "one can still go back"


def test_a_failed_upgrade_leaves_the_old_release_working(site: Site) -> None:
    before = everything_in(site.root)
    done = site.install("0.2.0", serve="raise RuntimeError('half a release')")
    assert done.returncode != 0
    assert "half a release" in done.stderr
    assert "failed; what was installed before works as before" in done.stderr
    assert everything_in(site.root) == before
    assert site.version == "parkwatt 0.1.0"


def test_an_upgrade_without_its_packages_leaves_the_old_release_working(site: Site) -> None:
    next(site.wheels.glob("msgspec-*")).unlink()
    before = everything_in(site.root)
    done = site.install("0.2.0")
    assert done.returncode != 0
    assert everything_in(site.root) == before


def test_a_downgrade_below_the_schema_of_the_store_is_refused(site: Site) -> None:
    newer = len(MIGRATIONS) + 1
    store = laid(site.root / STORE, 1)
    with closing(sqlite3.connect(store)) as connection:
        connection.execute(f"PRAGMA user_version = {newer}")
    done = site.install("0.0.9")
    assert done.returncode == 1
    assert f"schema version {newer} is newer than {len(MIGRATIONS)}" in done.stderr
    assert "the release 0.0.9" in done.stderr
    assert (site.releases, site.version) == (["0.1.0"], "parkwatt 0.1.0")
    assert schema_of(store) == newer


def test_taking_it_away_leaves_configuration_and_store(site: Site) -> None:
    store, before = laid(site.root / STORE, 1), (site.root / CONFIG).read_text()
    assert site.run("--uninstall").returncode == 0
    left = {str(path.relative_to(site.root)) for path in site.root.rglob("*") if path.is_file()}
    assert {name for name in left if "parkwatt" in name} == {CONFIG, STORE}
    assert store.exists()
    assert (site.root / CONFIG).read_text() == before
    assert site.run("--uninstall").returncode == 0, "again, with nothing to do"

    assert site.run("--uninstall", "--purge").returncode == 0
    assert [path for path in site.root.rglob("*") if "parkwatt" in path.name] == []
    if IS_ROOT:
        assert "parkwatt" not in (site.root / "etc/passwd").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--nonsense",), "unknown option --nonsense"),
        (("--extras",), "--extras needs a value"),
        (("--purge",), "--purge goes with --uninstall"),
        (("--from", "nowhere.whl", "--python", sys.executable), "--from nowhere.whl: no such file or folder"),
        (("--python", "no-python"), "--python no-python: no such program"),
    ],
)
def test_a_wrong_option_is_answered_in_one_line(
    first_site: Site, options: tuple[str, ...], words: str
) -> None:
    done = first_site.run(*options)
    assert done.returncode == 1
    assert words in done.stderr


def test_the_script_is_clean_to_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck on the PATH")
    done = subprocess.run(
        ["shellcheck", ROOT / "deploy/install.sh"], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
