"""The README and the pages of docs/, taken apart: fenced blocks, the commands in them, and what is quoted in the text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMANDS = ("", "sh")
"""The languages of blocks whose lines are commands; any other block says what it is."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its fence."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """One a line, backslashes joined; what is behind a # is for people."""
        if self.language not in COMMANDS:
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        return [bare for line in lines if (bare := re.sub(r"(^|\s)#.*", "", line).strip())]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page in their order."""
    opened: tuple[int, str] | None = None
    held: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if not line.startswith("```"):
            held.append(line)
        elif opened is None:
            opened, held = (number, line.removeprefix("```").strip()), []
        else:
            yield Block(page, *opened, "\n".join(held) + "\n")
            opened = None
    assert opened is None, f"{page}: the block of line {opened} is not closed"


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def quoted(page: Path) -> set[str]:
    """What stands in backticks in the text."""
    return {" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose(page))}


def links(page: Path) -> set[str]:
    """Relative links, to pages and pictures of ours."""
    return {
        target.partition("#")[0]
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))
        if not re.match(r"[a-z]+:|#", target)
    }
