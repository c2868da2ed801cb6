"""Real files of this machine, and what each of them is, decided without the model.

A file counts as of a kind only where its name and its content say the same; everything else is passed over.
"""

import codecs
import itertools
import json
import os
import random
import re
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.demo.features import row_of_file

HEAD_BYTES: Final = 4096
SIZE_MIN_BYTES: Final = 512
JSON_MAX_BYTES: Final = 65_536
ENTRIES_MAX: Final = 8_000
"""Directory entries looked at below one folder, nearest first: a few hundred milliseconds for all folders."""
PER_KIND: Final = 60
TRIES_PER_FILE: Final = 20
"""Files opened at most for one that is wanted."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file. `label` is the model's; `suffixes` has "" for a name without one."""

    label: str
    suffixes: frozenset[str]
    fits: Callable[[Path, bytes], bool]
    """Whether the content, of which the first bytes are given, is of this kind too."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A file with what it is and the row that the model gets of it."""

    path: Path
    label: str
    row: bytes


def _begins(*magics: bytes) -> Callable[[Path, bytes], bool]:
    return lambda _, head: head.startswith(magics)


def _text(pattern: bytes, *, never: bytes = rb"(?!)") -> Callable[[Path, bytes], bool]:
    """UTF-8 text in which `pattern` is found, and `never` is not."""
    wanted, unwanted = re.compile(pattern, re.MULTILINE), re.compile(never, re.MULTILINE)

    def fits(_: Path, head: bytes) -> bool:
        return _is_text(head) and bool(wanted.search(head)) and not unwanted.search(head)

    return fits


def _is_text(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def _parses_as_json(path: Path, head: bytes) -> bool:
    if not head.lstrip().startswith((b"{", b"[")) or path.stat().st_size > JSON_MAX_BYTES:
        return False
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


KINDS: Final = (
    Kind(
        "python",
        frozenset({".py"}),
        _text(rb"^(import \w|from [\w.]+ import |def \w+\(|class \w+[(:])"),
    ),
    Kind(
        "c",
        frozenset({".c", ".h"}),
        _text(rb"^ *# *(include|ifndef|define) ", never=rb"^\s*(class|namespace|template|using)\b"),
    ),
    Kind("shell", frozenset({".sh", ""}), _text(rb"\A#! ?/(usr/)?bin/(env )?(ba|da)?sh\b")),
    Kind("markdown", frozenset({".md"}), _text(rb"^#{1,3} \w")),
    Kind("png", frozenset({".png"}), _begins(b"\x89PNG\r\n\x1a\n")),
    Kind("elf", frozenset({".so", ""}), _begins(b"\x7fELF")),
    Kind("gzip", frozenset({".gz"}), _begins(b"\x1f\x8b\x08")),
    Kind("json", frozenset({".json"}), _parses_as_json),
)


def folders() -> list[Path]:
    """Where this machine keeps files of many kinds."""
    named = [sysconfig.get_path(name) for name in ("purelib", "stdlib", "platinclude", "scripts")]
    usual = ("/usr/bin", "/usr/include", "/usr/share", "/usr/lib", "/etc", f"{sys.base_prefix}/share")
    return [Path(folder) for folder in dict.fromkeys([*named, *usual])]


def find(roots: Sequence[Path], *, seed: int, per_kind: int = PER_KIND) -> list[Sample]:
    """At most `per_kind` files of each kind from below `roots`, no two alike, mixed in an order set by `seed`."""
    chance = random.Random(seed)  # noqa: S311 - the same order for the same seed, nothing secret
    paths = sorted({path for root in roots for path in _candidates(root)})
    samples: list[Sample] = []
    for kind in KINDS:
        named = [path for path in paths if path.suffix in kind.suffixes]
        tried = chance.sample(named, min(len(named), TRIES_PER_FILE * per_kind))
        samples.extend(itertools.islice(_of_kind(kind, tried), per_kind))
    return chance.sample(samples, len(samples))


def _of_kind(kind: Kind, paths: Sequence[Path]) -> Iterator[Sample]:
    """Those of the files that are of this kind for certain, each content once."""
    seen: set[bytes] = set()
    for path in paths:
        try:
            row = row_of_file(path) if _fits(kind, path) else None
        except OSError:  # not for this user, or gone in the meantime
            continue
        if row is not None and row not in seen:
            seen.add(row)
            yield Sample(path, kind.label, row)


def _fits(kind: Kind, path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return len(head) >= SIZE_MIN_BYTES and kind.fits(path, head)


def _candidates(root: Path) -> Iterator[Path]:
    """Regular files below `root` whose name could be that of a kind, nearest first; follows no link."""
    suffixes = frozenset().union(*(kind.suffixes for kind in KINDS))
    pending = deque([root])
    looked = 0
    while pending and looked < ENTRIES_MAX:
        try:
            entries = sorted(os.scandir(pending.popleft()), key=lambda entry: entry.name)
        except OSError:  # not there, or not for this user
            continue
        looked += len(entries)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif os.path.splitext(entry.name)[1] in suffixes and entry.is_file(follow_symlinks=False):  # noqa: PTH122 - a Path for each of 100,000 names takes a second
                yield Path(entry.path)
