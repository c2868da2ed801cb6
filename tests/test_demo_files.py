import json
import os
import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from agent.demo import files, model
from agent.demo.features import row_of_file
from agent.demo.files import KINDS, Sample, find

ORACLE = """
import json, sys
from pathlib import Path
import magika
from magika.types.seekable import Seekable
names = "beg_size", "mid_size", "end_size", "padding_token", "block_size", "use_inputs_at_offsets"
config = json.loads((Path(magika.__file__).parent / "models/standard_v3_3/config.min.json").read_text())
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        row = magika.Magika._extract_features_from_seekable(Seekable(file), **{n: config[n] for n in names})
    print(json.dumps(row.beg + row.end))
"""
CONTENTS = {
    "short": b" x y \n\n",
    "nothing but space": b" \t\r\n" * 2000,
    "space on both ends": b"\n\n  first" + b"m" * 3000 + b"last \x0b\x0c\n",
    "one block": bytes(range(256)) * 16,
    "one byte more": bytes(range(256)) * 16 + b"y",
    "space longer than a block": b" " * 5000 + b"middle" + b"\n" * 5000,
    "halves that meet": b"abc" * 400,
    "large": b"\x00\xff\x80 " * 20_000,
}
SHELL = b"#!/bin/sh\n" + b"echo hello\n" * 80
PYTHON = b"import os\n" + b"print(os.getcwd())\n" * 60
HEADER = b"#ifndef A_H\n#define A_H\n" + b"int f(int);\n" * 60
PNG = b"\x89PNG\r\n\x1a\n" + bytes(600)
ELF = b"\x7fELF" + bytes(600)
GZIP = b"\x1f\x8b\x08\x00" + bytes(600)
JSON = json.dumps(dict.fromkeys(map(str, range(100)))).encode()
MARKDOWN = b"# Title\n\n" + b"Some words about it.\n" * 40


def labels(found: list[Sample]) -> dict[str, str]:
    return {sample.path.name: sample.label for sample in found}


def test_a_row_is_what_the_models_own_package_makes_of_the_file(tmp_path: Path) -> None:
    pytest.importorskip("magika", reason="the package of the model is the oracle")
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    paths = [*(tmp_path / name for name in CONTENTS), Path(json.__file__), Path(sys.executable)]
    oracle = subprocess.run(
        [sys.executable, "-c", ORACLE, *map(str, paths)],
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    for path, line in zip(paths, oracle.stdout.splitlines(), strict=True):
        assert list(array("i", row_of_file(path))) == json.loads(line), path.name


@pytest.mark.parametrize(
    ("name", "content", "label"),
    [
        ("a.py", PYTHON, "python"),
        ("a.h", HEADER, "c"),
        ("run", SHELL, "shell"),
        ("run.sh", SHELL, "shell"),
        ("a.md", MARKDOWN, "markdown"),
        ("a.png", PNG, "png"),
        ("tool", ELF, "elf"),
        ("a.gz", GZIP, "gzip"),
        ("a.json", JSON, "json"),
    ],
)
def test_a_file_is_what_its_name_and_its_content_say(
    tmp_path: Path, name: str, content: bytes, label: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert labels(find([tmp_path], seed=1)) == {name: label}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", PYTHON),
        ("a.py", PNG),
        ("a.py", b"just some words, no code at all\n" * 40),
        ("a.py", PYTHON + b"\xff\xfe" * 10),
        ("a.py", PYTHON + b"\0"),
        ("a.h", HEADER + b"namespace a { class b; }\n"),
        ("a.json", JSON[:-1]),
        ("a.json", b"[" * 60_000),
        ("a.json", b'"' + b"only a string " * 60 + b'"'),
        ("a.md", b"no heading\n" * 80),
        ("run", b"#!/usr/bin/env perl\n" + b"print 1;\n" * 80),
        ("a.txt", SHELL),
        ("a.png", PNG[:400]),
    ],
)
def test_what_is_not_certain_is_passed_over(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert find([tmp_path], seed=1) == []


def test_links_pipes_unreadable_and_equal_files_are_passed_over(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (elsewhere / "c.py").write_bytes(PYTHON + b"# linked")
    (root / "a.py").write_bytes(PYTHON)
    (root / "b.py").write_bytes(PYTHON)
    (root / "c.py").symlink_to(elsewhere / "c.py")
    (root / "elsewhere").symlink_to(elsewhere)
    os.mkfifo(root / "d.py")
    found = labels(find([root, tmp_path / "missing"], seed=1))
    assert found in ({"a.py": "python"}, {"b.py": "python"})


def test_a_seed_gives_the_same_files_in_the_same_order(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.py").write_bytes(PYTHON + b"#" * number)
    first = find([tmp_path], seed=7, per_kind=10)
    assert len(first) == 10
    assert find([tmp_path], seed=7, per_kind=10) == first
    assert find([tmp_path], seed=8, per_kind=10) != first


def test_a_walk_ends_in_a_tree_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ENTRIES_MAX", 100)
    for folder in range(50):
        (tmp_path / f"{folder:02}").mkdir()
        for number in range(10):
            (tmp_path / f"{folder:02}" / f"{number}.py").write_bytes(PYTHON + f"# {folder} {number}".encode())
    assert len(find([tmp_path], seed=1)) == 50


def test_this_machine_has_files_of_several_kinds() -> None:
    found = find(files.folders(), seed=1, per_kind=3)
    assert {"python", "elf"} <= {sample.label for sample in found} <= {kind.label for kind in KINDS}
    assert all(len(sample.row) == 2048 * 4 for sample in found)


def test_every_kind_is_one_that_the_model_knows(tmp_path: Path) -> None:
    pytest.importorskip("magika", reason="the model comes with it")
    assert {kind.label for kind in KINDS} <= set(model.provide(tmp_path).labels)
