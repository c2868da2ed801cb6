"""The command line. Each command imports what it needs when it runs: `run` stays small and `--help` quick."""

# ruff: noqa: PLC0415 - for that reason

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from agent.settings import Settings

FAILED = 1
CONFIG_WRONG = 2
NO_AGENT = 3


app = typer.Typer(
    help="Run a fleet's inference tasks on a parked, plugged-in car's computer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # these two load rich, and the supervisor goes through here
    rich_markup_mode=None,
    add_completion=False,
)

Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="agent.toml")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]


class LogFormat(enum.StrEnum):
    """What `parkwatt run` writes to stderr."""

    JSON = "json"
    TEXT = "text"


def _print_version(wanted: bool) -> None:
    if wanted:
        from agent.version import version

        typer.echo(f"parkwatt {version()}")
        raise typer.Exit


@app.callback()
def parkwatt(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run a fleet's inference tasks on a parked, plugged-in car's computer."""
    del version  # its callback has printed it


@app.command()
def run(config: Config, log_format: LogFormat = LogFormat.JSON) -> None:
    """Run the service until SIGTERM or SIGINT."""
    import asyncio

    settings = _load(config)
    from agent import logs
    from agent.control import ControlSocketTakenError
    from agent.protocol.keys import KeyFileError
    from agent.service import serve
    from agent.store import StoreUnusable

    logs.configure(log_format.value)
    try:
        asyncio.run(serve(settings))
    except* (StoreUnusable, ControlSocketTakenError, KeyFileError, OSError) as refused:
        _fail(FAILED, *_texts(refused))


@app.command()
def check(config: Config, as_json: Json = False) -> None:
    """Try everything that the configuration names and say how to mend what does not work."""
    import asyncio

    import msgspec

    from agent.check import CONFIGURATION, Finding, described, examine

    def tell(finding: Finding) -> None:
        if not as_json:
            typer.echo(described(finding))

    found = asyncio.run(examine(config, tell))
    if as_json:
        typer.echo(msgspec.json.encode({"ok": all(finding.ok for finding in found), "findings": found}))
    problems = {finding.part for finding in found if not finding.ok}
    raise typer.Exit(CONFIG_WRONG if CONFIGURATION in problems else FAILED if problems else 0)


@app.command()
def status(
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="agent.toml")] = None,
    as_json: Json = False,
) -> None:
    """Show what the running agent does, and why not more."""
    import datetime as dt

    import msgspec

    from agent.control import NoAgentAnswersError, ask
    from agent.settings import ControlSettings
    from agent.status import Status, described

    control = _load(config).control if config else ControlSettings()
    try:
        answer = ask(control.socket, {"cmd": "status"})
    except NoAgentAnswersError as error:
        _fail(NO_AGENT, f"no agent answers: {error}; start one, or name its configuration with --config")
    if not answer["ok"]:
        _fail(FAILED, f"{answer['error']}; {answer['fix']}")
    if as_json:
        typer.echo(msgspec.json.encode(answer["status"]))
        return
    for line in described(msgspec.convert(answer["status"], Status), dt.datetime.now(dt.UTC)):
        typer.echo(line)


@app.command()
def backends(as_json: Json = False) -> None:
    """List the backends and devices found here, with the reason for each that cannot be used."""
    import asyncio

    import msgspec

    from agent.devices import described, probed_all

    found = asyncio.run(probed_all())
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    for line in described(found):
        typer.echo(line)


@app.command()
def demo(
    tasks: Annotated[int | None, typer.Option(min=1, metavar="N", help="How many tasks to send.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, metavar="S", help="How long to send them.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the live view.")] = False,
    hold: Annotated[bool, typer.Option("--hold", help="Keep running, for a first task of your own.")] = False,
    capture: Annotated[Path | None, typer.Option(hidden=True, help="Draw the run as SVG.")] = None,
) -> None:
    """Run the main job here: a broker, a simulated parked car, the agent and a fleet with real tasks."""
    from agent.demo.main import run as run_demo

    raise typer.Exit(run_demo(tasks, seconds, plain, hold, capture))


@app.command(
    add_help_option=False,
    context_settings={
        "allow_extra_args": True,
        "allow_interspersed_args": False,
        "ignore_unknown_options": True,
    },
)
def fleet(context: typer.Context) -> None:
    """Tools for a fleet backend, the other end of the wire."""
    from fleet.cli import app as fleet_app  # the fleet's libraries stay out of the agent

    fleet_app(args=context.args, prog_name="parkwatt fleet")


def _load(config: Path) -> "Settings":
    """The settings, or the end with one line for each problem."""
    from agent.settings import ConfigError, load

    try:
        return load(config)
    except ConfigError as error:
        _fail(CONFIG_WRONG, *error.problems)


def _texts(group: BaseExceptionGroup[Exception]) -> Iterator[str]:
    """One line for each exception in the group."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _texts(error)
        elif isinstance(error, OSError) and error.filename:
            yield f"{error.filename}: {error.strerror}"
        else:
            yield " ".join(str(error).splitlines())


def _fail(code: int, *lines: str) -> NoReturn:
    for line in lines:
        typer.echo(f"parkwatt: {line}", err=True)
    raise typer.Exit(code)
