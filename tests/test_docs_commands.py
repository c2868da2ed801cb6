"""Every command of the README and of docs/ is executed, or named here with the reason why not; what pages quote exists."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest
from doc_pages import COMMANDS, ROOT, Block, blocks, links, pages, quoted
from doc_stage import Stage

from agent.protocol import framing
from agent.protocol.reasons import Reason
from agent.settings import load

ELSEWHERE: Final = {
    r"make test": "is this suite",
    r"make demo": "tests/test_demo.py runs the demo to its end",
    r"mosquitto_(sub|pub) ": "tests/test_demo.py sends the first task with the commands that the demo prints",
    r"sudo deploy/install\.sh": "changes the computer: tests/test_install.py runs it on a root folder of its own",
    r"sudo ln -sfn .*/opt/parkwatt/current": "the links are those of tests/test_install.py",
    r"(sudo )?systemctl ": "no service manager runs in a test: tests/test_systemd_service.py drives the unit's command",
    r"journalctl ": "no journal runs in a test: tests/test_journald.py reads what is sent to it",
    r"pip install ": "asks an index: tests/test_install.py installs wheels, with extras",
    r"python -m backends\.contract yourchip:YourChip": "tests/test_writing_a_backend.py, with the package of the page",
    r"parkwatt backends --options yourchip": "tests/test_writing_a_backend.py",
    r"python -m backends\.contract my_package:MyChip": "stands for the reader's own: tests/test_writing_a_backend.py",
    r"python -m benchmarks ": "takes minutes: tests/test_bench_run_command.py calls it; its options are looked at below",
    r"python -m backends\.contract fsd": "takes a minute: tests/test_backends_fsd.py runs each of its checks",
}
"""What is not executed here: a pattern at the command's beginning, and where it is tried."""
PYTHON_ELSEWHERE: Final = {
    "README.md": "a fragment of the program in docs/protocol/README.md",
    "docs/writing-a-backend.md": "tests/test_writing_a_backend.py",
    "docs/fsd-driver.md": "needs a driver: tests/test_fsd_driver.py builds one",
}
NOT_COMMANDS: Final = {"json", "toml", "text", "python", "c", "ini"}
PAGES: Final = [page for page in pages() if any(block.commands for block in blocks(page))]
PARSED: Final = ("parkwatt ", "python -m ", "make bench ARGS=")
"""Beginnings of commands that stand in the text; those are asked for their help, which refuses unknown options."""


def elsewhere(command: str) -> str:
    return next((why for pattern, why in ELSEWHERE.items() if re.match(pattern, command)), "")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def all_blocks() -> list[Block]:
    return [block for page in pages() for block in blocks(page)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_the_page_does_what_it_is_shown_for(page: Path, tmp_path: Path) -> None:
    if "curl" in page.read_text() and not shutil.which("curl"):
        pytest.skip("no curl on the PATH")
    with Stage(tmp_path) as stage:
        for block in blocks(page):
            for command in block.commands:
                if not elsewhere(command):
                    stage.execute(command, block)
            stage.end_lasting()
            if block.language == "python" and name_of(page) not in PYTHON_ELSEWHERE:
                stage.execute_python(block)


def test_a_block_is_of_commands_or_says_what_else_it_is() -> None:
    known = {*COMMANDS, *NOT_COMMANDS}
    assert [str(block) for block in all_blocks() if block.language not in known] == []


def test_what_is_tried_elsewhere_is_still_in_a_page() -> None:
    shown = [command for block in all_blocks() for command in block.commands]
    unused = [pattern for pattern in ELSEWHERE if not any(re.match(pattern, command) for command in shown)]
    assert unused == []
    for why in (*ELSEWHERE.values(), *PYTHON_ELSEWHERE.values()):
        for file in re.findall(r"tests/\w+\.py", why):
            assert (ROOT / file).exists(), file


def only_parsed() -> list[str]:
    """Commands that stand in the text, and those of blocks that take too long."""
    found = {span for page in pages() for span in quoted(page) if span.startswith(PARSED)}
    found |= {c for block in all_blocks() for c in block.commands if c.startswith("python -m benchmarks ")}
    return sorted({" ".join(asked_for_help(span)) for span in found})


def asked_for_help(span: str) -> list[str]:
    """The words that a parser decides on: commands and options; values are the reader's."""
    span = re.sub(r'make bench ARGS="?([^"]*)"?', r"python -m benchmarks \1", span)
    words = [word for word in span.split() if word not in {"...", "…"}]
    first = 3 if words[0] == "python" else 1
    commands = [word for word in words[first : 3 + first] if re.fullmatch(r"[a-z][a-z-]*", word)]
    return [*words[:first], *commands, *(word for word in words if word.startswith("--"))]


@pytest.mark.parametrize("command", only_parsed())
def test_a_command_in_the_text_exists_with_its_options(command: str) -> None:
    words = command.replace("parkwatt", "python -m agent", 1).split()[1:]
    options = [word for word in words if word.startswith("--")]
    told = subprocess.run(
        [sys.executable, *(word for word in words if word not in options), "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert told.returncode == 0, told.stderr
    assert [option for option in options if option not in told.stdout] == []


def test_every_target_of_make_that_is_named_is_there() -> None:
    text = "\n".join(page.read_text() for page in pages())
    named = set(
        re.findall(
            r"`?make ([a-z][a-z-]+)\b", "\n".join(re.findall(r"`make [^`]+`|^make .*$", text, re.MULTILINE))
        )
    )
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets, named - targets


def test_every_file_of_ours_that_is_named_is_there() -> None:
    ours = re.compile(
        r"(?!fleet/v1)(?:agent|backends|benchmarks|deploy|docs|firmware_shims|fleet|tests)/[\w./-]+"
    )
    for page in pages():
        named = {span for span in quoted(page) if ours.fullmatch(span)}
        assert {span for span in named if not (ROOT / span).exists()} == set(), page


def test_every_link_leads_somewhere() -> None:
    for page in pages():
        assert {link for link in links(page) if not (page.parent / link).exists()} == set(), page


def test_json_and_toml_are_what_they_say() -> None:
    for block in all_blocks():
        if block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "json":
            json.loads(block.text)


def test_the_configuration_that_operating_shows_is_one(tmp_path: Path) -> None:
    shown = next(block for block in blocks(ROOT / "docs/operating.md") if block.language == "toml")
    path = tmp_path / "agent.toml"
    path.write_text(shown.text)
    assert load(path).vehicle.id == "veh-0001"


def test_the_messages_that_the_protocol_shows_are_of_the_contract() -> None:
    header, task, settled = (
        block.text for block in blocks(ROOT / "docs/protocol/README.md") if block.language == "json"
    )
    assert json.loads(header)["alg"] == "Ed25519"
    offered, _ = framing.decode_task(" ".join(task.split()).encode())
    assert (offered.id, offered.attempt) == ("night-1", 1)
    framing.decode_control(settled.strip().encode())


def test_the_protocol_names_every_reason_and_no_other() -> None:
    page = (ROOT / "docs/protocol/README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (.+) \|$", page, re.MULTILINE)
    assert [(int(code), name) for code, name, _ in rows] == [
        (reason.value, reason.label) for reason in Reason
    ]
