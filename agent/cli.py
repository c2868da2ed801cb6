"""The command line. Each command imports what it needs when it runs: `run` stays small and `--help` quick."""

# ruff: noqa: PLC0415 - for that reason

import contextlib
import datetime as dt
import enum
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from agent.refusal import CONFIG_WRONG, FAILED, NO_AGENT, fail, loaded

if TYPE_CHECKING:
    from agent.at_rest import AtRest

LIVE_S: Final = 1.0
CLEARED: Final = "\x1b[H\x1b[2J"
"""The cursor to the beginning of an empty screen (ECMA-48)."""
OTHER_VERSION: Final = (
    "the running agent is of another version and says what is not known here: {}; start it again"
)
T = TypeVar("T")


app = typer.Typer(
    help="Run a fleet's inference tasks on a parked, plugged-in car's computer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # these two load rich, and the supervisor goes through here
    rich_markup_mode=None,
    add_completion=False,
)

Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="agent.toml")]
OptionalConfig = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="agent.toml")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]


class LogFormat(enum.StrEnum):
    """Where and how `parkwatt run` writes its log."""

    AUTO = "auto"
    JOURNAL = "journal"
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
def run(
    config: Config,
    log_format: Annotated[LogFormat | None, typer.Option(help="Instead of log.format.")] = None,
) -> None:
    """Run the service until SIGTERM or SIGINT; SIGHUP has it read the file again."""
    from agent import run_command

    run_command.run(config, None if log_format is None else log_format.value)


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
    config: OptionalConfig = None,
    as_json: Json = False,
    watching: Annotated[
        bool, typer.Option("--watch", help="Show it again at each change, until Ctrl-C.")
    ] = False,
) -> None:
    """Show what the running agent does, and why not more."""
    from agent.control import NoAgentAnswersError, ask, watch
    from agent.settings import ControlSettings

    control = loaded(config).control if config else ControlSettings()
    live = watching and not as_json and sys.stdout.isatty()
    try:
        if not watching:
            _show(ask(control.socket, {"cmd": "status"}), as_json)
            return
        for answer in watch(control.socket, every_s=LIVE_S if live else None):
            if live:
                typer.echo(CLEARED, nl=False)
            _show(answer, as_json)
            if not as_json and not live:
                typer.echo()
    except NoAgentAnswersError as error:
        fail(NO_AGENT, f"no agent answers: {error}; {error.fix}")
    except KeyboardInterrupt:
        return  # how watching ends


@app.command()
def tasks(
    config: OptionalConfig = None,
    ended: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="How many of those that ended.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which tasks wait and run, and how the last ones ended; without an agent as its store has them."""
    import msgspec

    from agent.at_rest import tasks_at_rest
    from agent.task_list import ENDED_SHOWN, TaskList, described

    most = ENDED_SHOWN if ended is None else ended
    found = _asked(
        config, {"cmd": "tasks", "ended": most}, TaskList, lambda place: tasks_at_rest(place, most, _now())
    )
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    for line in described(found):
        typer.echo(line)


@app.command()
def history(
    config: OptionalConfig = None,
    days: Annotated[int | None, typer.Option(min=1, metavar="N", help="How many days, with today.")] = None,
    as_json: Json = False,
    plot: Annotated[Path | None, typer.Option(metavar="PNG", help="Draw them, too.")] = None,
) -> None:
    """Show by day where the hours went, why there was no work, what was done and with what energy."""
    import msgspec

    from agent.at_rest import history_at_rest
    from agent.history.report import DAYS_SHOWN, History
    from agent.history.table import described

    last = DAYS_SHOWN if days is None else days
    found = _asked(
        config, {"cmd": "history", "days": last}, History, lambda place: history_at_rest(place, last, _now())
    )
    if plot:
        with _drawing(plot):
            from agent.history.plot import draw

            draw(found, plot)
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    for line in described(found):
        typer.echo(line)


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
            fail(CONFIG_WRONG, str(error))
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
        fail(FAILED, str(error))
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

    rules = rulebook(config, loaded(config)) if config else Rulebook()
    try:
        found = replayed(log, rules, map_name=map_name, stale_after_s=stale_after_s)
    except RecordingError as error:
        fail(CONFIG_WRONG, str(error))
    if plot:
        with _drawing(plot):
            from agent.replay.plot import draw

            draw(found, plot)
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


@contextlib.contextmanager
def _drawing(plot: Path) -> Iterator[None]:
    """End with one line where there is nothing to draw with, or nowhere to draw to."""
    try:
        yield
    except ModuleNotFoundError as error:
        fail(FAILED, f"--plot needs {error.name}: install the extra, pip install 'parkwatt[plot]'")
    except OSError as error:
        fail(FAILED, f"{plot}: cannot be written: {error.strerror}; name another file with --plot")


def _asked(
    config: Path | None, request: dict[str, Any], kind: type[T], at_rest: "Callable[[AtRest], T]"
) -> T:
    """The running agent's answer, which stands under the command's name; where none is, `at_rest`'s, or the end."""
    import msgspec

    from agent.at_rest import AtRest
    from agent.control import NoAgentAnswersError, ask
    from agent.settings import ControlSettings
    from agent.store import StoreUnusable

    settings = loaded(config) if config else None
    try:
        answer = ask((settings.control if settings else ControlSettings()).socket, request)
    except NoAgentAnswersError as error:
        if not error.absent:
            fail(NO_AGENT, f"no agent answers: {error}; {error.fix}")
        try:
            return at_rest(AtRest.of(settings))
        except StoreUnusable as unusable:
            fail(NO_AGENT, f"no agent answers: {error}", f"nor can its store be read: {unusable}")
    if not answer["ok"]:
        fail(FAILED, f"{answer['error']}; {answer['fix']}")
    try:
        return msgspec.convert(answer[request["cmd"]], kind)
    except msgspec.ValidationError as error:
        fail(FAILED, OTHER_VERSION.format(error))


def _show(answer: dict[str, Any], as_json: bool) -> None:
    """One answer to `status`, or the end with one line where it is a refusal."""
    import msgspec

    from agent.status import Status
    from agent.status_text import described

    if not answer["ok"]:
        fail(FAILED, f"{answer['error']}; {answer['fix']}")
    if as_json:
        typer.echo(msgspec.json.encode(answer["status"]))
        return
    try:
        status = msgspec.convert(answer["status"], Status)
    except msgspec.ValidationError as error:
        fail(FAILED, OTHER_VERSION.format(error))
    typer.echo("\n".join(described(status, _now())))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
