"""`python -m benchmarks run`."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from pydantic import ValidationError

from benchmarks.commands.refusal import refused
from benchmarks.commands.spread import names

if TYPE_CHECKING:
    from benchmarks.throughput.whole_run import Selection
    from benchmarks.throughput.worker_side import BackendChoice

LISTS: Final = frozenset({"--backend", "--model", "--scenario", "--batch", "--set"})
"""Options that take several values, with spaces or commas between them."""
LIST: Final = "list"
INTERRUPTED: Final = 130

Backends = Annotated[
    list[str] | None,
    typer.Option(
        "--backend", metavar="NAME ...", help="cpu (default), tflite, fsd, nvidia, null, MODULE:CLASS"
    ),
]
Models = Annotated[
    list[str] | None, typer.Option("--model", metavar="ID ...", help="all (default); `list` shows them")
]
Scenarios = Annotated[
    list[str] | None,
    typer.Option("--scenario", metavar="NAME ...", help="single, offline, server (default: these), constant"),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="for results.json and results.md; empty, or not there yet"),
]
Quick = Annotated[bool, typer.Option("--quick", help="3 s a row: a look, not a result; the results say so")]
DurationS = Annotated[
    float | None, typer.Option(min=0.5, help="of a row, instead of MLPerf's durations and counts")
]
Watts = Annotated[
    float | None,
    typer.Option(
        metavar="WATTS_PER_CORE", min=0.01, help="where no meter is: CPU seconds x watts, marked `model`"
    ),
]
MeterName = Annotated[str, typer.Option(help="auto, none, rapl, nvml[:UUID], hwmon:CHIP/LABEL, ina3221:RAIL")]
Batches = Annotated[
    list[str] | None,
    typer.Option("--batch", metavar="N ...", help="rows of a run of offline: a row of results for each"),
]
Rate = Annotated[
    float | None, typer.Option(min=0.01, help="of server (default: searched) and of constant (default: 20)")
]
Bound = Annotated[
    float | None, typer.Option(min=0.01, help="of server and constant; default: the model's own")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="BACKEND.OPTION=VALUE ...", help="as [backends.options] of agent.toml has it"
    ),
]
DeviceName = Annotated[str, typer.Option(help="default: the first usable one that takes the model")]
Seed = Annotated[int, typer.Option(min=0, help="of the random intervals of server")]
Loadgen = Annotated[bool, typer.Option("--loadgen", help="each row once more by MLPerf's own load generator")]


def run(
    *,
    backend: Backends = None,
    model: Models = None,
    scenario: Scenarios = None,
    out: Out = None,
    quick: Quick = False,
    duration_s: DurationS = None,
    power_model: Watts = None,
    meter: MeterName = "auto",
    batch: Batches = None,
    rate_per_s: Rate = None,
    latency_bound_ms: Bound = None,
    settings: Settings = None,
    device: DeviceName = "",
    seed: Seed = 1,
    loadgen: Loadgen = False,
) -> None:
    """Measure throughput per watt: models x backends x scenarios, each beside its bare runtime, into a folder.

    Durations and counts are MLPerf's (10 minutes a row and more) unless --quick or --duration-s says otherwise.
    """
    from benchmarks.throughput.catalogue import UnknownNameError  # noqa: PLC0415 - others need no numpy
    from benchmarks.throughput.scenarios import Length  # noqa: PLC0415 - as above
    from benchmarks.throughput.sweep import Terms  # noqa: PLC0415 - as above
    from benchmarks.throughput.whole_run import Power, whole_run  # noqa: PLC0415 - as above

    if names(model or []) == [LIST]:
        _list()
        return
    terms = Terms(Length(quick, duration_s), rate_per_s, latency_bound_ms, seed, loadgen)
    try:
        selection = _selection(
            backend=backend,
            model=model,
            scenario=scenario,
            batch=batch,
            settings=_settings(settings or []),
            device=device,
        )
        folder = _empty(out)
        rows = asyncio.run(
            whole_run(
                selection,
                folder,
                terms,
                Power(meter, power_model),
                command=sys.argv[1:],
                out=sys.stderr,
            )
        )
    except UnknownNameError as error:
        raise refused(str(error)) from error
    except KeyboardInterrupt:
        found = f"{out} has the rows that were done" if out and out.exists() else "before the first row"
        raise refused(f"interrupted: {found}", code=INTERRUPTED) from None
    _draw(folder)
    failed = sum(row.figures is None for row in rows)
    print(f"{folder}: {len(rows) - failed} rows, {failed} without figures")
    if failed == len(rows):
        raise refused(f"nothing was measured: {folder}/results.md says why", code=1)


def _selection(
    *,
    backend: list[str] | None,
    model: list[str] | None,
    scenario: list[str] | None,
    batch: list[str] | None,
    settings: dict[str, dict[str, Any]],
    device: str,
) -> "Selection":
    """Raises `UnknownNameError`."""
    from benchmarks.throughput import catalogue, scenarios  # noqa: PLC0415 - others need no numpy
    from benchmarks.throughput.whole_run import Selection  # noqa: PLC0415 - as above

    uses = names(backend or ["cpu"])
    for use in settings:
        if use not in uses:
            raise catalogue.UnknownNameError(f"--set {use}: is no --backend of this run: {', '.join(uses)}")
    return Selection(
        catalogue.chosen(names(model or [catalogue.ALL])),
        [_choice(use, settings.get(use, {}), device) for use in uses],
        scenarios.known(names(scenario or ["single", "offline", "server"])),
        _batches(names(batch or [])),
    )


def _choice(use: str, options: dict[str, Any], device: str) -> "BackendChoice":
    """Raises `UnknownNameError` for a backend that is not known, or options that it does not take."""
    from backends import registry  # noqa: PLC0415 - others need no backend
    from benchmarks.throughput.catalogue import UnknownNameError  # noqa: PLC0415 - as above
    from benchmarks.throughput.worker_side import BackendChoice  # noqa: PLC0415 - as above

    try:
        registry.validate_options(use, options)
    except registry.UnknownBackend as error:
        raise UnknownNameError(f"--backend: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        known = f"; {use} takes {', '.join(registry.find(use).Options.model_fields)}"
        raise UnknownNameError(f"--set {use}.{place}={first['input']}: {first['msg']}{known}") from error
    return BackendChoice(use, options, device)


def _settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options by backend; values are JSON, or words."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        use, dot, option = place.rpartition(".")
        if not (use and dot and option and equals):
            raise refused(f"--set {text}: give BACKEND.OPTION=VALUE, for example cpu.threads=2")
        try:
            found.setdefault(use, {})[option] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found.setdefault(use, {})[option] = value
    return found


def _batches(texts: Sequence[str]) -> list[int]:
    for text in texts:
        if not text.isdecimal() or int(text) < 1:
            raise refused(f"--batch {text}: give whole numbers from 1 on")
    return [int(text) for text in texts]


def _empty(out: Path | None) -> Path:
    """The folder, which holds nothing."""
    if out is None:
        raise refused("--out: name a folder for the results")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise refused(
            f"--out {out}: is there and not an empty folder; results are never overwritten: name another"
        )
    return out


def _draw(folder: Path) -> None:
    from benchmarks.throughput import plots, results  # noqa: PLC0415 - as above

    if plots.available():
        plots.draw(results.read(folder), folder, lambda text: print(text, file=sys.stderr))


def _list() -> None:
    from benchmarks.throughput.catalogue import CATALOGUE  # noqa: PLC0415 - others need no numpy

    for entry in CATALOGUE.values():
        print(
            f"{entry.id:<19} {entry.kind:<11} {entry.precision:<8} {entry.format:<7} {entry.licence:<11} {entry.source}"
        )
