"""`python -m agent.succession`: whether this release can go on with the configuration and the store of another one.

`deploy/install.sh` asks it before it switches to a release, a newer or an older one. It changes neither of the two. A
broken store is no obstacle: the agent saves what it can read of it (agent.store.salvage).
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.settings import ConfigError, load
from agent.store import StoreUnusable
from agent.store.database import is_new, one_line_refusals, refuse_damaged
from agent.store.errors import StoreDamaged


def obstacles_in_config(config: Path) -> Sequence[str]:
    """One line for each reason why an agent of this release would not start with `config`."""
    try:
        settings = load(config)
    except ConfigError as error:
        return error.problems
    return obstacles_in_store(settings.store.path)


def obstacles_in_store(path: Path) -> Sequence[str]:
    """One line where the store at `path` is not one that this release can open; none where there is no store yet."""
    try:
        with one_line_refusals(path), contextlib.suppress(StoreDamaged):
            if path.exists() and not is_new(path):
                refuse_damaged(path)
    except StoreUnusable as error:
        return [str(error)]
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Print each obstacle on stderr; 0 where there is none."""
    parser = argparse.ArgumentParser(prog="python -m agent.succession")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, metavar="FILE", help="agent.toml, with the store that it names")
    what.add_argument("--store", type=Path, metavar="FILE", help="a store alone")
    asked = parser.parse_args(arguments)
    obstacles = obstacles_in_config(asked.config) if asked.config else obstacles_in_store(asked.store)
    for obstacle in obstacles:
        print(f"parkwatt: {obstacle}", file=sys.stderr)  # noqa: T201 - the answer
    return 1 if obstacles else 0


if __name__ == "__main__":
    sys.exit(main())
