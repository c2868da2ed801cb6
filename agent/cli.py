"""The command line. Each command imports what it needs when it runs: `run` stays small and `--help` quick."""

# ruff: noqa: PLC0415 - for that reason

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from agent.replay.main import Replayed
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
    from agent.control_socket import ControlSocketTakenError
    from agent.protocol.keys import KeyFileError
    from agent.service import serve
    from agent.store import StoreFailed, StoreUnusable

    logs.configure(log_format.value)
    try:
        asyncio.run(serve(settings))
    except* (StoreUnusable, StoreFailed, ControlSocketTakenError, KeyFileError, OSError) as refused:
        _fail(FAILED, *_texts(refused))


@app.command()
def check(config: Config, as_json: Json = False) -> None:
    """Try everything that the configuration names and say how to mend what does not work."""
    import asyncio

    import msgspec

    from agent.check.examine import CONFIGURATION, examine
    from agent.check.finding import Finding, described

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
    watching: Annotated[
        bool, typer.Option("--watch", help="Show it again at each change, until Ctrl-C.")
    ] = False,
) -> None:
    """Show what the running agent does, and why not more."""
    from agent.control import NoAgentAnswersError, ask, watch
    from agent.settings import ControlSettings

    control = _load(config).control if config else ControlSettings()
    try:
        if not watching:
            _show(ask(control.socket, {"cmd": "status"}), as_json)
            return
        for answer in watch(control.socket):
            _show(answer, as_json)
            if not as_json:
                typer.echo()
    except NoAgentAnswersError as error:
        _fail(NO_AGENT, f"no agent answers: {error}; start one, or name its configuration with --config")
    except KeyboardInterrupt:
        return  # how watching ends


backends_app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(backends_app, name="backends")


@backends_app.callback()
def backends(
    context: typer.Context,
    *,
    as_json: Json = False,
    options: Annotated[
        str | None,
        typer.Option(metavar="BACKEND", help="Show the options of one instead, with their defaults."),
    ] = None,
) -> None:
    """List the backends and devices found here, with the reason for each that cannot be used."""
    import asyncio

    import msgspec

    from agent.backend_options import described_options
    from agent.devices import described, probed_all
    from backends.registry import UnknownBackend

    if context.invoked_subcommand is not None:
        return
    if options is not None:
        try:
            for line in described_options(options):
                typer.echo(line)
        except UnknownBackend as error:
            _fail(CONFIG_WRONG, str(error))
        return
    found = asyncio.run(probed_all())
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    for line in described(found):
        typer.echo(line)


@backends_app.command()
def explain(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")],
    *,
    backend: Annotated[str, typer.Option(metavar="BACKEND", help="A backend that can explain: fsd.")],
    sizes: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME:DATATYPE:SIZExSIZE", help="Of a row, where the file leaves sizes free."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show where each layer of a model runs, why, and what it is modelled to cost; nothing is run."""
    import msgspec

    from agent.explanation import NotExplained, described, explanation

    try:
        found = explanation(backend, model, sizes or [])
    except NotExplained as error:
        _fail(FAILED, str(error))
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


@app.command()
def replay(
    log: Annotated[
        Path, typer.Argument(metavar="FILE", help="t_s,path,value CSV, candump log, TeslaFi CSV.")
    ],
    *,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="agent.toml; without it the defaults.")
    ] = None,
    map_name: Annotated[
        str | None, typer.Option("--map", metavar="NAME", help="Signal map of a candump log.")
    ] = None,
    stale_after_s: Annotated[
        float | None,
        typer.Option(
            "--stale-after", min=0.001, max=86_400, metavar="S", help="How long a CSV's reading counts."
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw the day, too.")] = None,
    as_json: Json = False,
) -> None:
    """Judge a recorded day by the real policy: how much of it could have been used, and why not more."""
    import msgspec

    from agent.replay.main import Rulebook, rulebook
    from agent.replay.main import replay as replayed
    from agent.replay.recording import RecordingError
    from agent.replay.table import described

    rules = rulebook(config, _load(config)) if config else Rulebook()
    try:
        found = replayed(log, rules, map_name=map_name, stale_after_s=stale_after_s)
    except RecordingError as error:
        _fail(CONFIG_WRONG, str(error))
    if plot:
        _draw(found, plot)
    if as_json:
        typer.echo(msgspec.json.encode(found.report))
        return
    for line in described(found.report):
        typer.echo(line)


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


def _draw(found: "Replayed", plot: Path) -> None:
    """The plot of a replay, or the end with one line."""
    try:
        from agent.replay.plot import draw

        draw(found, plot)
    except ModuleNotFoundError as error:
        _fail(FAILED, f"--plot needs {error.name}: install the extra, pip install 'parkwatt[plot]'")
    except OSError as error:
        _fail(FAILED, f"{plot}: cannot be written: {error.strerror}; name another file with --plot")


def _show(answer: dict[str, Any], as_json: bool) -> None:
    """One answer to `status`, or the end with one line where it is a refusal."""
    import datetime as dt

    import msgspec

    from agent.status import Status, described

    if not answer["ok"]:
        _fail(FAILED, f"{answer['error']}; {answer['fix']}")
    if as_json:
        typer.echo(msgspec.json.encode(answer["status"]))
        return
    for line in described(msgspec.convert(answer["status"], Status), dt.datetime.now(dt.UTC)):
        typer.echo(line)


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
