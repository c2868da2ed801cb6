"""`parkwatt` and `python -m agent`."""

import sys

from agent import run_command


def main() -> None:
    """Run the command line; ends in SystemExit, also where nothing was wrong."""
    config = run_command.plain(sys.argv[1:])
    if config is not None:
        run_command.run(config)
        sys.exit(0)
    from agent.cli import app  # noqa: PLC0415 - for `run`, which does without

    app(prog_name="parkwatt")


if __name__ == "__main__":
    main()
