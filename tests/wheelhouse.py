"""Wheels without a package index: what is installed here is packed again, and parkwatt itself from its sources."""

import base64
import hashlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from benchmarks.installed_size import OURS, closure, ourselves

ROOT = Path(__file__).parent.parent
WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
INSTALLERS_OWN = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}


def pack(folder: Path, extras: Iterable[str]) -> None:
    """A wheel of everything that `parkwatt[extras]` needs, from the environment of the tests."""
    for name, distribution in closure(extras).items():
        described = distribution.read_text("WHEEL") or ""
        *_, tag = re.findall(r"^Tag: (.*)$", described, re.MULTILINE)
        write(folder / f"{in_file_name(name)}-{distribution.version}-{tag}.whl", files_of(distribution))


def files_of(distribution: metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    """What its wheel had: programs and bytecode are the installer's."""
    for file in distribution.files or ():
        if file.parts[0] != ".." and file.suffix != ".pyc" and file.name not in INSTALLERS_OWN:
            yield str(file), Path(str(distribution.locate_file(file))).read_bytes()


def pack_parkwatt(folder: Path, version: str, changed: Mapping[str, str] | None = None) -> Path:
    """A wheel of the sources as they are, called `version`, with some files `changed`."""
    files = {
        str(file.relative_to(ROOT)): file.read_bytes()
        for name in OURS
        for file in sorted((ROOT / name).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    files |= {name: text.encode() for name, text in (changed or {}).items()}
    described = ourselves().read_text("METADATA") or ""
    info = f"parkwatt-{version}.dist-info"
    files[f"{info}/METADATA"] = re.sub(r"(?m)^Version: .*$", f"Version: {version}", described).encode()
    files[f"{info}/WHEEL"] = WHEEL.encode()
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nparkwatt = agent.__main__:main\n"
    return write(folder / f"parkwatt-{version}-py3-none-any.whl", files.items())


def write(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """A wheel of these files (binary distribution format); the same files are the same bytes."""
    record, info = [], ""
    with zipfile.ZipFile(path, "w") as wheel:
        for name, body in files:
            info = name.partition("/")[0] if ".dist-info/" in name else info
            digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(body)}")
            wheel.writestr(zipfile.ZipInfo(name), body)
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "\n".join([*record, f"{info}/RECORD,,", ""]))
    return path


def in_file_name(name: str) -> str:
    """A distribution's name as it stands in the name of its wheel."""
    return re.sub(r"[-_.]+", "_", name)
