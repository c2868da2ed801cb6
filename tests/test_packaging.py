import importlib.metadata
import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ["agent", "backends", "benchmarks", "firmware_shims", "fleet"]


def canonical(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", OURS)
def test_no_other_distribution_owns_our_import_names(name: str) -> None:
    owners = importlib.metadata.packages_distributions().get(name, ["parkwatt"])
    assert set(owners) == {"parkwatt"}


def test_the_distribution_is_marked_private() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    assert "Private :: Do Not Upload" in classifiers


def test_every_dependency_has_its_reason_in_one_line() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(
        r'^  "(?!Private|Operating|Programming|Typing)[a-zA-Z].*',
        text[: text.index("[project.scripts]")],
        re.MULTILINE,
    )
    assert listed
    assert [line for line in listed if not re.search(r'",\s+# \S', line)] == []


def test_the_locked_versions_satisfy_what_the_project_asks_for() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    locked = {canonical(line.split("==")[0]) for line in lines if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {canonical(re.split(r"[\[<>=]", line)[0]) for line in wanted} - {"parkwatt"}
    assert names <= locked
