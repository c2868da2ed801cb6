"""Configuration files as an operator would write them, for the tests that read one."""

from pathlib import Path

MINIMAL = """\
[vehicle]
id = "veh-0001"
region = "BR"

[[signals]]
shim = "scenario"

[[backends]]
use = "null"
max_power_w = 60
"""


def config_file(folder: Path, more: str = "", base: str = MINIMAL) -> Path:
    path = folder / "agent.toml"
    path.write_text(base + more)
    return path


def service_paths(folder: Path) -> str:
    """Sections that keep everything of the agent inside `folder`."""
    return f"""
[models]
source = "{folder.as_uri()}/models"
cache_dir = "{folder}/cache"

[store]
path = "{folder}/agent.db"

[control]
socket = "{folder}/agent.sock"

[trust]
task_keys_dir = "{folder}/keys"
"""
