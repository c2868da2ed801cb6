"""`parkwatt demo`: what it needs, checked and found before anything starts; then the play."""

import asyncio
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import typer

from agent import logs
from agent.demo import config, files, model
from agent.demo.plain import Plain
from agent.demo.play import Script, perform
from agent.demo.stage import Audience
from agent.policy.settings import PolicySettings
from agent.settings import Settings
from agent.store import StoreUnusable
from fleet.broker import BrokerError, IotcoreBroker

TASKS: Final = 200
SEED: Final = 1
LOG: Final = "agent.log"
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
TERMINATED: Final = 128 + signal.SIGTERM


class DemoUnusableError(Exception):
    """Something that the demo needs is not here; one line with what to do."""


def run(
    tasks: int | None, seconds: float | None, plain: bool, hold: bool, capture: Path | None = None
) -> int:
    """Run the demo and return the exit code: 0 only if everything held that it claims."""
    if tasks is not None and seconds is not None:
        return _fail("--tasks and --seconds exclude each other: give one of them", WRONG_USAGE)
    try:
        audience = _audience(plain, capture)
        types = model.provide(model.cache_folder())
        script = Script(_files(), types, tasks or TASKS, seconds, hold)
        return _in_a_folder(script, audience)
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED
    except (OSError, StoreUnusable, BrokerError, model.ModelMissingError, DemoUnusableError) as error:
        return _fail(_line(error), FAILED)
    except ExceptionGroup as group:
        causes, bugs = group.split((OSError, StoreUnusable))
        if causes is None or bugs is not None:
            raise
        return _fail(_line(causes), FAILED)


def _line(error: Exception) -> str:
    """The first cause in one line."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).splitlines())


def _fail(text: str, code: int) -> int:
    typer.echo(f"parkwatt demo: {text}", err=True)
    return code


def _files() -> list[files.Sample]:
    found = files.find(files.folders(), seed=SEED)
    if not found:
        raise DemoUnusableError("no file of a known kind can be read on this machine")
    return found


def _audience(plain: bool, capture: Path | None) -> Audience:
    """Lines, a picture, or the live view where somebody can see it."""
    shows = sys.stdout.isatty() and sys.stdout.encoding.lower() == "utf-8"  # it draws with blocks and boxes
    if capture is None and (plain or not shows):
        return Plain()
    try:
        # rich is for people: nothing else of the agent loads it
        from agent.demo.capture import Capture  # noqa: PLC0415
        from agent.demo.view import LiveView  # noqa: PLC0415
    except ModuleNotFoundError as error:
        text = f"the live view needs {error.name}: {model.INSTALL}, or use --plain"
        raise DemoUnusableError(text) from None
    return LiveView() if capture is None else Capture(capture)


def _in_a_folder(script: Script, audience: Audience) -> int:
    """Everything that the run writes is in one folder, which stays only when a check has failed."""
    folder = Path(tempfile.mkdtemp(prefix="parkwatt-demo-"))
    code = 0
    try:
        with (folder / LOG).open("w") as log, IotcoreBroker() as broker:
            logs.configure("text", stream=log)
            settings = config.write(folder, port=broker.port, models=script.types.folder)
            _introduce(script, settings)
            code = asyncio.run(perform(script, settings, folder, audience))
    finally:
        if code:
            typer.echo(f"the agent's configuration, store and log stay in {folder}")
        else:
            shutil.rmtree(folder)
    return code


def _introduce(script: Script, settings: Settings) -> None:
    kinds = Counter(sample.label for sample in script.files)
    counted = ", ".join(f"{count} {label}" for label, count in sorted(kinds.items()))
    policy, fields, meter = settings.policy, PolicySettings.model_fields, settings.meter.watts_per_core
    work = f"{script.tasks} tasks" if script.seconds is None else f"tasks for {script.seconds:g} s"
    usual = f"(by default {fields['settle_s'].default:g} and {fields['grid_proof_s'].default:g})"
    lines = {
        "car": f"{settings.vehicle.id}, simulated: parked, plugged in, cool; its owner comes back once",
        "work": f"{work}; {model.NAME} {model.VERSION} says what type a file is; cpu backend, 1 thread",
        "files": f"{len(script.files)} of this machine: {counted}",
        "policy": f"settle_s = {policy.settle_s:g} and grid_proof_s = {policy.grid_proof_s:g} {usual}",
        "energy": f"model: CPU seconds x {meter or 0:g} W per core; no meter here",
        "broker": f"{settings.mqtt.host}:{settings.mqtt.port}, embedded",
    }
    typer.echo("parkwatt demo: the real agent with a simulated car, a broker and a fleet beside it\n")
    for name, text in lines.items():
        typer.echo(f"  {name:<8}{text}")
    typer.echo()
