"""How a command ends that cannot do what it was asked for: a line on stderr for each reason, and an exit status."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from agent.settings import Settings

FAILED: Final = 1
CONFIG_WRONG: Final = 2
NO_AGENT: Final = 3


def fail(code: int, *lines: str) -> NoReturn:
    """Say why, and end the process."""
    for line in lines:
        print(f"parkwatt: {line}", file=sys.stderr)  # noqa: T201 - this is the command line
    raise SystemExit(code)


def loaded(config: Path) -> "Settings":
    """The settings, or the end with one line for each problem."""
    from agent.settings import ConfigError, load  # noqa: PLC0415 - `--help` does without

    try:
        return load(config)
    except ConfigError as error:
        fail(CONFIG_WRONG, *error.problems)
