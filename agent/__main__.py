"""`parkwatt` and `python -m agent`."""

from agent.cli import app


def main() -> None:
    """Run the command line; ends in SystemExit."""
    app(prog_name="parkwatt")


if __name__ == "__main__":
    main()
