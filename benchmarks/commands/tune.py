"""`python -m benchmarks tune`."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from benchmarks.commands.refusal import refused

if TYPE_CHECKING:
    from benchmarks.throughput.catalogue import Entry
    from benchmarks.throughput.tune import Tuned, Tuning
    from benchmarks.throughput.tune_session import Asked
    from firmware_shims.power.meter import Meter

Backend = Annotated[str, typer.Option(metavar="NAME", help="a backend by name or MODULE:CLASS")]
Model = Annotated[str, typer.Option(metavar="ID", help="a model of the catalogue, as `run` takes it")]
Device = Annotated[str, typer.Option(metavar="NAME", help="without: the first usable one")]
Rate = Annotated[float, typer.Option(min=0.1, help="requests a second, at even intervals")]
LatencyBound = Annotated[
    float | None,
    typer.Option(min=0.01, help="of the 99th percentile; without: the model's own, as for `run`"),
]
PreemptionBound = Annotated[
    float,
    typer.Option(min=0.01, help="of a cancel, and of a batch; the agent itself runs batches of up to 50 ms"),
]
Held = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="OPTION=VALUE", help="hold an option of the backend, do not search it"),
]
MeterName = Annotated[str, typer.Option(metavar="NAME", help="auto, none, or a meter as for `run`")]
PowerModel = Annotated[
    float | None,
    typer.Option(
        min=0.01, metavar="WATTS_PER_CORE", help="without a meter: CPU seconds x watts, marked `model`"
    ),
]
MaxPower = Annotated[
    float, typer.Option(min=0.1, metavar="WATTS", help="for the section: tuning does not measure it")
]
Rounds = Annotated[int, typer.Option(min=3, help="of each race at most, and of the last comparison")]
TurnSeconds = Annotated[float, typer.Option(min=0.1, help="of one turn at the rate")]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="write the section for agent.toml here, not to stdout")
]
Quick = Annotated[bool, typer.Option("--quick", help="three rounds: a look, not a result")]

QUICK_ROUNDS: Final = 3
FULL_S: Final = 1.0
INTERRUPTED: Final = 130


def tune(
    backend: Backend,
    model: Model,
    *,
    rate: Rate = 20.0,
    latency_bound_ms: LatencyBound = None,
    preemption_bound_ms: PreemptionBound = 50.0,
    set_: Held = None,
    device: Device = "",
    meter: MeterName = "auto",
    power_model: PowerModel = None,
    max_power_w: MaxPower = 60.0,
    rounds: Rounds = 9,
    turn_s: TurnSeconds = 2.0,
    out: Out = None,
    quick: Quick = False,
) -> None:
    """Find the setting of a backend that gives most inferences for a joule, and write its section of agent.toml.

    Threads, spinning, cores, provider and batch race at the rate under a latency bound (p99) and a preemption bound;
    the winner is then measured anew beside the runtime's defaults, in turn. Without a meter processor seconds count.
    Clocks and power limits are left alone. Exit 1 when no setting keeps the bounds.
    """
    from benchmarks.throughput.tune import Effort  # noqa: PLC0415 - a command imports what it measures
    from benchmarks.throughput.tune_looks import Bounds  # noqa: PLC0415 - as above
    from benchmarks.throughput.tune_session import Asked  # noqa: PLC0415 - as above
    from firmware_shims.power.model import CpuModelMeter  # noqa: PLC0415 - as above

    if out is not None and out.exists():
        raise refused(f"tune: --out {out}: exists, and is not overwritten: name another file")
    entry = _entry(model)
    asked = Asked(
        use=backend,
        device=device,
        entry=entry,
        rate_per_s=rate,
        bounds=Bounds(latency_bound_ms or entry.latency_bound_ms, preemption_bound_ms),
        effort=Effort(turn_s, FULL_S, QUICK_ROUNDS if quick else rounds),
        held=_held(backend, set_ or []),
        meter=_meter(meter, backend),
        meter_is_wanted=meter != "auto",
        model=CpuModelMeter(power_model) if power_model is not None else None,
    )
    tuning, tuned = _tuned(asked)
    _told(tuning, tuned, max_power_w, out, quick)


def _entry(model: str) -> "Entry":
    from benchmarks.throughput.catalogue import ALL, UnknownNameError, chosen  # noqa: PLC0415 - as above

    try:
        (entry, *others) = chosen([model])
    except UnknownNameError as error:
        raise refused(f"tune: {error}") from error
    if others:
        raise refused(f"tune: --model {ALL}: one model at a time: a setting is for one")
    return entry


def _held(backend: str, options: Sequence[str]) -> dict[str, Any]:
    """As `run` takes them: values are JSON, or words; the backend's name may stand before. Refuses what it does not take."""
    from pydantic import ValidationError  # noqa: PLC0415 - as above

    from backends.registry import UnknownBackend, validate_options  # noqa: PLC0415 - as above

    held: dict[str, Any] = {}
    for each in options:
        name, equals, value = each.removeprefix(f"{backend}.").partition("=")
        if not (name and equals):
            raise refused(f"tune: --set {each}: should be OPTION=VALUE, for example threads=2")
        try:
            held[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            held[name] = value
    try:
        validate_options(backend, held)
    except UnknownBackend as error:
        raise refused(f"tune: --backend {backend}: {error}") from error
    except ValidationError as error:
        why = "; ".join(f"{'.'.join(map(str, each['loc']))} {each['msg']}" for each in error.errors())
        raise refused(f"tune: --set: {backend} does not take this: {why}") from error
    return held


def _meter(name: str, backend: str) -> "Meter | None":
    from benchmarks.throughput import meters  # noqa: PLC0415 - as above
    from benchmarks.throughput.catalogue import UnknownNameError  # noqa: PLC0415 - as above
    from firmware_shims.clock import boottime_ns  # noqa: PLC0415 - as above

    try:
        return meters.named(name, [backend], boottime_ns)
    except UnknownNameError as error:
        raise refused(f"tune: {error}") from error


def _tuned(asked: "Asked") -> "tuple[Tuning, Tuned]":
    from backends.kernel import KernelError  # noqa: PLC0415 - as above
    from backends.process import WorkerDied  # noqa: PLC0415 - as above
    from benchmarks.throughput import meters, tune_session  # noqa: PLC0415 - as above
    from benchmarks.throughput.bare_side import BareEndedError  # noqa: PLC0415 - as above
    from benchmarks.throughput.tune_cost import TooSmallError  # noqa: PLC0415 - as above
    from benchmarks.throughput.worker_side import DeviceMissingError  # noqa: PLC0415 - as above
    from benchmarks.wheels import WheelMissingError  # noqa: PLC0415 - as above
    from firmware_shims.power.meter import MeterFailed  # noqa: PLC0415 - as above

    try:
        return asyncio.run(tune_session.tuned(asked, lambda text: typer.echo(text, err=True)))
    except KeyboardInterrupt:
        raise refused("tune: interrupted: nothing is written", code=INTERRUPTED) from None
    except (
        tune_session.CannotTuneError,
        BareEndedError,
        DeviceMissingError,
        TooSmallError,
        WheelMissingError,
    ) as error:
        raise refused(f"tune: {error}", code=1) from error
    except (KernelError, WorkerDied) as error:
        raise refused(f"tune: {asked.use} with {asked.entry.id}: {error.text}", code=1) from error
    except MeterFailed as failure:
        raise refused(f"tune: the meter failed: {meters.why(failure)}", code=1) from failure


def _told(tuning: "Tuning", tuned: "Tuned", max_power_w: float, out: Path | None, quick: bool) -> None:
    """Print the report and the section, or write the section; Exit 1 where there is none."""
    from benchmarks.throughput import tune_report, tune_toml  # noqa: PLC0415 - as above

    if quick:
        print("quick: three rounds, a look, not a result")
    for line in tune_report.lines(tuning, tuned):
        print(line)
    if tuned.taken is None:
        raise typer.Exit(1)
    section = tune_toml.section(tuning, tuned, max_power_w)
    if out is None:
        print(f"\n{section}", end="")
        return
    try:
        out.write_text(section)
    except OSError as error:
        raise refused(f"tune: --out {out}: cannot be written: {error.strerror}", code=1) from error
    print(f"\nthe section for agent.toml is in {out}")
