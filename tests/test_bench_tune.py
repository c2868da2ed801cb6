"""Tuning takes the setting with the most inferences for a joule that keeps its bounds, and says why."""

import asyncio
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import pytest
import typer
from cars import HandClock
from config_files import MINIMAL, config_file
from meters import HandMeter
from pydantic import BaseModel, Field
from typer.testing import CliRunner, Result

from agent import settings
from agent.config_file import ConfigError
from backends.cpu import CpuOptions
from backends.fsd import FsdOptions
from backends.kernel import Tensor
from backends.nvidia import NvidiaOptions
from backends.tflite import TfliteOptions
from backends.tiny_onnx import one_node

np = pytest.importorskip("numpy")
pytest.importorskip("onnxruntime", reason="needs the cpu extra")
from benchmarks.commands.tune import tune  # noqa: E402 - after the skips
from benchmarks.throughput import histogram, inputs, tune_report, tune_session, tune_toml, tune_turns  # noqa: E402
from benchmarks.throughput.catalogue import Entry, prepared  # noqa: E402
from benchmarks.throughput.energy import metering  # noqa: E402
from benchmarks.throughput.results import Round, Turn  # noqa: E402
from benchmarks.throughput.tune import Effort, Tuned, Tuning  # noqa: E402
from benchmarks.throughput.tune_cores import kinds  # noqa: E402
from benchmarks.throughput.tune_cost import Costing, TooSmallError  # noqa: E402
from benchmarks.throughput.tune_looks import Bounds, Look, looks, split  # noqa: E402
from benchmarks.throughput.tune_search import Race, SettingFailedError, Trial, search  # noqa: E402
from benchmarks.throughput.tune_session import Asked, CannotTuneError  # noqa: E402
from benchmarks.throughput.tune_sides import Sides  # noqa: E402
from benchmarks.throughput.tune_space import Setting, batches, space  # noqa: E402
from firmware_shims.clock import boottime_ns  # noqa: E402
from firmware_shims.power.meter import JouleSource, MeterReading, Scope  # noqa: E402
from firmware_shims.power.model import CpuModelMeter  # noqa: E402

FOUR_CORES: Final = ((0, 1, 2, 3),)
FAST_AND_FRUGAL: Final = ((4, 5), (0, 1, 2, 3))
ANSWERS: Final = 40
ROW: Final = Tensor("x", "FP32", (4,))
SOFTMAX: Final = one_node("Softmax", {"x": ("FP32", (1, 4))}, ("FP32", (1, 4)))


# what is tried


def tried(
    kind: type[BaseModel], cores: Sequence[Sequence[int]] = FOUR_CORES, **held: Any
) -> list[Mapping[str, Any]]:
    return list(space(kind, cores, metered=False, held=held).options)


def test_every_number_of_threads_spins_and_is_pinned_except_where_that_says_nothing() -> None:
    found = tried(CpuOptions)
    assert {"threads": 1, "spinning": False} in found
    assert {"threads": 2, "spinning": True, "cores": [0, 1]} in found
    assert {"threads": 4, "spinning": True} in found
    assert not [each for each in found if each["threads"] == 1 and each["spinning"]]  # no other could spin
    assert not [each for each in found if each["threads"] == 4 and "cores" in each]  # that is all of them
    assert len(found) == 2 + 4 + 2


def test_three_cores_are_tried_too_where_there_are_three() -> None:
    assert {each["threads"] for each in tried(CpuOptions, ((0, 1, 2),))} == {1, 2, 3}


def test_processor_seconds_compare_no_slow_cores_with_fast_ones_and_a_meter_does() -> None:
    by_seconds = space(CpuOptions, FAST_AND_FRUGAL, metered=False, held={})
    assert {"threads": 1, "spinning": False, "cores": [4]} in by_seconds.options
    assert not any(0 in each.get("cores", ()) for each in by_seconds.options)
    assert any("frugal" in why for why in by_seconds.left_out)
    by_joules = space(CpuOptions, FAST_AND_FRUGAL, metered=True, held={})
    assert {"threads": 1, "spinning": False, "cores": [0]} in by_joules.options


def test_what_is_held_is_not_searched_and_the_report_says_so() -> None:
    found = space(CpuOptions, FOUR_CORES, metered=False, held={"threads": 2, "cores": [1, 3]})
    assert list(found.options) == [
        {"threads": 2, "cores": [1, 3], "spinning": False},
        {"threads": 2, "cores": [1, 3], "spinning": True},
    ]
    assert "threads: held at 2, as asked for" in found.left_out


def test_nothing_that_alters_a_models_numbers_is_searched() -> None:
    found = space(NvidiaOptions, FOUR_CORES, metered=True, held={})
    assert list(found.options) == [{"provider": "cuda"}, {"provider": "tensorrt"}]
    assert "tf32: the default stays, because others give other numbers" in found.left_out
    assert not any("optimisation" in each for each in tried(CpuOptions))


def test_a_combination_that_the_backend_itself_refuses_is_not_tried() -> None:
    assert tried(NvidiaOptions, tf32=True) == [{"tf32": True, "provider": "cuda"}]


def test_other_backends_are_searched_by_the_options_that_they_have() -> None:
    assert tried(TfliteOptions) == [{"threads": 1}, {"threads": 2}, {"threads": 4}]
    assert {each["threads"] for each in tried(FsdOptions)} == {1, 2, 4}


def test_a_backend_of_another_package_names_what_to_try_itself() -> None:
    class Options(BaseModel):
        tiles: int = Field(default=1, json_schema_extra={"search": [1, 4]})
        clock: Literal["low", "high"] = "low"

    found = space(Options, FOUR_CORES, metered=True, held={})
    assert list(found.options) == [{"tiles": 1}, {"tiles": 4}]
    assert found.left_out == ("clock: the default stays",)


def test_batches_are_powers_of_two_that_the_program_takes() -> None:
    assert batches(None, 64) == (1, 2, 4, 8, 16, 32, 64)
    assert batches(1, 64) == (1,)
    assert batches(5, 64) == (1, 2, 4)


# the machine's cores


def sysfs(root: Path, **files: str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_cores_of_one_speed_stand_together_the_fastest_first(tmp_path: Path) -> None:
    capacity = {f"cpu{core}__cpu_capacity": "512\n" if core < 2 else "1024\n" for core in range(4)}
    assert kinds(range(4), sysfs(tmp_path, **capacity)) == [(2, 3), (0, 1)]


def test_a_thread_gets_a_physical_core_before_two_share_one(tmp_path: Path) -> None:
    threads = {
        f"cpu{core}__topology__thread_siblings_list": f"{core // 2 * 2}-{core // 2 * 2 + 1}\n"
        for core in range(4)
    }
    assert kinds(range(4), sysfs(tmp_path, **threads)) == [(0, 2, 1, 3)]


def test_a_machine_that_tells_nothing_has_one_kind_of_cores(tmp_path: Path) -> None:
    assert kinds([3, 1], tmp_path) == [(1, 3)]


# the race


def turn(cpu_ms: float, latency_ms: float = 5.0, late: int = 0, joules: float | None = None) -> Turn:
    took = [latency_ms] * (ANSWERS - late) + [1000.0] * late
    return Turn(
        ANSWERS, 2.0, cpu_ms * ANSWERS / 1e3, histogram.collected(int(ms * 1e6) for ms in took), joules
    )


class Course:
    """Settings by their number of threads, each with what its turns show."""

    def __init__(self, turns: Mapping[int, Callable[[], Turn]]) -> None:
        self.turns = turns
        self.rounds = 0
        self.measured: list[int] = []

    async def measure(self, setting: Setting) -> Turn:
        self.measured.append(setting.options["threads"])
        return self.turns[setting.options["threads"]]()

    async def run(self, rounds: int = 9) -> tuple[dict[int, Trial], int | None]:
        race = Race(Costing().per_inference, 50.0, rounds)
        settings_ = [Setting({"threads": threads}) for threads in self.turns]
        trials, taken = await search(settings_, self.measure, race, self._on_round)
        by_threads = {trial.setting.options["threads"]: trial for trial in trials}
        return by_threads, taken.setting.options["threads"] if taken else None

    def _on_round(self, number: int, _: int) -> None:
        self.rounds = number + 1


def noisy(cpu_ms: float, seed: int = 1, **more: Any) -> Callable[[], Turn]:
    rng = random.Random(seed)  # noqa: S311 - the noise of a machine
    return lambda: turn(cpu_ms * rng.lognormvariate(0, 0.02), **more)


async def test_the_cheapest_wins_and_the_race_ends_when_that_is_clear() -> None:
    course = Course({1: noisy(4.0, 1), 2: noisy(5.0, 2), 4: noisy(9.0, 3)})
    trials, taken = await course.run()
    assert taken == 1
    assert "worse: 0." in trials[2].out
    assert "after 1 rounds" in trials[4].out  # far behind: one look was enough
    assert course.rounds == 3
    assert course.measured.count(4) == 1


async def test_a_setting_that_answers_too_late_is_out_however_cheap_it_is() -> None:
    trials, taken = await Course({1: noisy(1.0, late=8), 2: noisy(5.0)}).run()
    assert taken == 2
    assert "8 of 40 answers took more than 50 ms" in trials[1].out


async def test_a_single_late_answer_is_no_proof() -> None:
    _, taken = await Course({1: noisy(1.0, late=0), 2: noisy(5.0, late=1)}).run()
    assert taken == 1
    trials, taken = await Course({1: lambda: turn(1.0, late=1)}).run(rounds=1)
    assert (taken, trials[1].out) == (1, "")


async def test_of_settings_that_are_as_good_the_simplest_is_taken() -> None:
    """The first is the simplest; the other is cheaper by less than what matters."""
    trials, taken = await Course({1: noisy(4.04, 1), 2: noisy(4.0, 2)}).run()
    assert taken == 1
    assert "not told apart" in trials[2].out


async def test_a_setting_that_fails_in_the_race_leaves_it_and_the_others_go_on() -> None:
    def dies() -> Turn:
        raise SettingFailedError("the worker ended with exit code 1")

    trials, taken = await Course({1: dies, 2: noisy(5.0)}).run()
    assert taken == 2
    assert trials[1].out == "does not run: the worker ended with exit code 1"


async def test_when_all_are_too_late_none_is_taken() -> None:
    trials, taken = await Course({1: noisy(1.0, latency_ms=80.0), 2: noisy(2.0, latency_ms=70.0)}).run()
    assert taken is None
    assert all(trial.out.startswith("too slow") for trial in trials.values())


def test_joules_never_stand_without_their_source() -> None:
    assert Costing().coin == "CPU second (no meter)"
    assert Costing(model=CpuModelMeter(7.0)).coin == "joule (model: 7 W x CPU seconds)"


async def test_modelled_joules_follow_processor_seconds() -> None:
    async def measured() -> Turn:
        return turn(cpu_ms=5.0)

    costing = Costing(model=CpuModelMeter(7.0))
    assert costing.per_inference([Round(await costing.of(measured()))]) == pytest.approx(0.035)


def test_work_that_the_meter_cannot_tell_from_nothing_is_refused() -> None:
    costing = Costing(model=CpuModelMeter(7.0))
    with pytest.raises(TooSmallError, match="lengthen the turns"):
        costing.per_inference([Round(turn(5.0, joules=-0.1))])


async def test_a_meters_joules_count_above_the_idle_power() -> None:
    class Socket:
        """A meter of a computer that draws 20 W."""

        name, source, scope, resolution_j, resolution_s = (
            "socket",
            JouleSource.COUNTER,
            Scope.COMPUTER,
            0.001,
            0.001,
        )

        def read(self) -> MeterReading:
            now_ns = boottime_ns()
            return MeterReading(20.0 * now_ns / 1e9, now_ns, 0)

        def close(self) -> None:
            pass

    slept_s: list[float] = []

    async def measured() -> Turn:
        begun_ns = boottime_ns()
        await asyncio.sleep(0.2)
        slept_s.append((boottime_ns() - begun_ns) / 1e9)
        return turn(cpu_ms=5.0)

    async with metering(Socket()) as owner:
        costing = Costing(metering=owner, idle_w=15.0)
        assert costing.coin == "joule (counter: socket)"
        begun_ns = boottime_ns()
        joules = (await costing.of(measured())).joules
        whole_s = (boottime_ns() - begun_ns) / 1e9
    assert joules is not None
    assert 5.0 * slept_s[0] <= joules <= 5.0 * whole_s


# the bounds


def refusals(look: Look, bounds: Bounds, rate_per_s: float | None) -> tuple[list[int], list[str]]:
    allowed, refused = split([look], bounds, rate_per_s)
    return [setting.batch for setting in allowed], [trial.out for trial in refused]


def test_a_batch_waits_for_its_rows_and_that_counts() -> None:
    look = Look({}, {1: 10.0, 2: 18.0, 4: 34.0}, cancel_ms=2.0)
    allowed, why = refusals(look, Bounds(latency_ms=100.0, preemption_ms=50.0), 20.0)
    assert allowed == [1, 2]  # the first of four waits 150 ms for the others
    assert "184 ms" in why[0]
    allowed, _ = refusals(look, Bounds(latency_ms=100.0, preemption_ms=50.0), None)
    assert allowed == [1, 2, 4]


def test_a_batch_ends_within_the_preemption_bound_and_a_single_row_can_be_cancelled_in_it() -> None:
    bounds = Bounds(latency_ms=1000.0, preemption_ms=50.0)
    assert refusals(Look({}, {1: 80.0, 2: 150.0}, cancel_ms=6.0), bounds, 5.0)[0] == [1]
    allowed, why = refusals(Look({}, {1: 80.0}, cancel_ms=80.0), bounds, 5.0)
    assert allowed == []
    assert "a cancel takes 80 ms, the preemption bound is 50 ms" in why[0]


# measured


def entry() -> Entry:
    return Entry(
        id="softmax",
        kind="classifier",
        precision="float32",
        format="onnx",
        licence="Apache-2.0",
        source="made here",
        content=lambda: SOFTMAX,
        inputs=(ROW,),
        samples=inputs.seeded,
        latency_bound_ms=500.0,
    )


def sides(folder: Path, use: str = "cpu", **held: Any) -> Sides:
    return Sides(prepared(entry(), folder), use, folder, held=held)


def tuning(folder: Path, **held: Any) -> Tuning:
    """Short, with bounds that a busy machine keeps."""
    return Tuning(
        sides=sides(folder, **held),
        rate_per_s=50.0,
        bounds=Bounds(latency_ms=5000.0, preemption_ms=5000.0),
        effort=Effort(turn_s=0.3, full_s=0.1, rounds=3),
        costing=Costing(),
        say=lambda _: None,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuning, Tuned]:
    """A small model, tuned with spinning held: long enough for several tests."""
    of = tuning(tmp_path_factory.mktemp("tuned"), spinning=False)
    return of, asyncio.run(of.run())


async def test_a_request_that_waits_for_its_batch_is_late_by_that_and_idle_time_after_runs_counts(
    tmp_path: Path,
) -> None:
    async with sides(tmp_path, "null").ours({"run_us": 1000}) as side:
        measured = await tune_turns.at_rate(side, rate_per_s=50.0, seconds=0.2, rows=2)
    assert measured.inferences == 10
    assert measured.seconds >= 0.2
    by_size = measured.latency
    waited = sum(
        count
        for bucket, count in zip(by_size.buckets, by_size.counts, strict=True)
        if histogram.bounds_ms(bucket)[0] >= 20.0
    )
    assert waited >= 5  # the first of each two


def test_the_section_that_tuning_writes_is_one_that_the_agent_takes(
    found: tuple[Tuning, Tuned], tmp_path: Path
) -> None:
    section = tune_toml.section(*found, max_power_w=45.0)
    base = MINIMAL[: MINIMAL.index("[[backends]]")]
    (backend,) = settings.load(config_file(tmp_path, section, base), {}).backends
    assert (backend.use, backend.max_power_w) == ("cpu", 45.0)
    taken = found[1].taken
    assert taken is not None
    written = {name: backend.options[name] for name in taken.setting.options}
    assert json.loads(json.dumps(written)) == taken.setting.options
    with pytest.raises(ConfigError, match="thread"):  # what the agent does not take, it refuses
        settings.load(config_file(tmp_path, section.replace("threads =", "threat ="), base), {})


def test_the_report_says_what_was_tried_what_dropped_out_and_what_each_setting_gains(
    found: tuple[Tuning, Tuned],
) -> None:
    text = "\n".join(tune_report.lines(*found))
    assert "spinning: held at false, as asked for" in text
    assert "precision: the catalogue has no other precision" in text
    assert "tried at 50 requests/s: inferences per CPU second (no meter), p99" in text
    assert len(re.findall(r"; taken$", text, re.MULTILINE)) == 2  # at the rate, and at full load
    assert re.search(r"threads \d+, not \d+.*: [0-9.]+ x", text)
    assert "of onnxruntime's defaults (all cores, spinning); " in text
    assert re.search(r"at full load, batch 1: [0-9.]+ x \([0-9.]+ \.\. [0-9.]+\)", text)
    assert "joule" not in text


async def test_options_with_which_a_model_does_not_run_drop_out_with_the_reason(tmp_path: Path) -> None:
    found = await looks(sides(tmp_path), [{"threads": 1}, {"cores": [4095]}], Bounds(5000.0, 5000.0))
    _, refused = split(found, Bounds(5000.0, 5000.0), 50.0)
    (trial,) = refused
    assert trial.out.startswith("does not run: ")
    assert "cores = [4095] are not among those that the agent may use" in trial.out


def asked(use: str, **held: Any) -> Asked:
    """Without a meter, and with a model of the processor's power."""
    return Asked(
        use=use,
        device="",
        entry=entry(),
        rate_per_s=50.0,
        bounds=Bounds(latency_ms=5000.0, preemption_ms=5000.0),
        effort=Effort(turn_s=0.1, full_s=0.1, rounds=3),
        held=held,
        meter=None,
        meter_is_wanted=False,
        model=CpuModelMeter(7.0),
    )


async def test_what_a_device_counts_itself_comes_before_everything_else(tmp_path: Path) -> None:
    counting = sides(tmp_path, "fault", does="huge_joules", run_us=1000)
    assert await tune_session._device_joules(counting) == "counter: fault null"
    costing = Costing(device="counter: fault null", model=CpuModelMeter(7.0))
    assert costing.coin == "joule (counter: fault null)"
    async with counting.defaults() as side:
        measured = await costing.of(tune_turns.at_rate(side, rate_per_s=50.0, seconds=0.1, rows=1))
    assert costing.per_inference([Round(measured)]) == pytest.approx(1e9)
    assert await tune_session._device_joules(sides(tmp_path, "null")) == ""


async def test_processor_seconds_are_not_taken_for_what_a_gpu_does() -> None:
    with pytest.raises(CannotTuneError, match="say nothing of what a GPU takes: a meter is needed"):
        async with tune_session._costing(asked("nvidia"), "", lambda _: None):
            pass


async def test_a_meter_that_was_asked_for_must_answer_and_another_may_be_missing() -> None:
    silent = replace(asked("cpu"), meter=HandMeter(HandClock(), broken="no sensor"))
    with pytest.raises(CannotTuneError, match="--meter: no sensor; plug it in"):
        async with tune_session._costing(replace(silent, meter_is_wanted=True), "", lambda _: None):
            pass
    said: list[str] = []
    async with tune_session._costing(silent, "", said.append) as costing:
        assert (costing.metering, costing.model) == (None, silent.model)
    assert said == ["no meter: no sensor; plug it in"]


async def test_a_meter_of_gpus_is_not_taken_for_a_processor() -> None:
    meter = HandMeter(HandClock(), scope=Scope.GPU)
    of_gpus = replace(asked("cpu"), meter=meter, meter_is_wanted=True)
    said: list[str] = []
    async with tune_session._costing(of_gpus, "", said.append) as costing:
        assert (costing.metering, costing.model) == (None, of_gpus.model)
    assert said == ["hand does not measure what cpu takes: not used"]


# the command

app = typer.Typer()
app.command()(tune)


def called(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--backend", "cpu", "--model", "resnet"), "--model resnet: not known: take"),
        (("--backend", "cpu", "--model", "all"), "one model at a time"),
        (("--backend", "gpu", "--model", "wake-word"), "backend 'gpu' is not known: take cpu"),
        (
            ("--backend", "cpu", "--model", "file-types", "--set", "thread=2"),
            "cpu does not take this: thread",
        ),
        (("--backend", "cpu", "--model", "file-types", "--set", "threads"), "should be OPTION=VALUE"),
        (("--backend", "cpu", "--model", "file-types", "--meter", "guess"), "--meter guess: not known: take"),
    ],
)
def test_a_name_that_is_not_known_is_refused_with_those_that_are(arguments: Sequence[str], said: str) -> None:
    result = called(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_section_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "section.toml"
    out.write_text("mine")
    result = called("--backend", "cpu", "--model", "file-types", "--out", str(out))
    assert result.exit_code == 2
    assert "exists, and is not overwritten" in result.stderr
    assert out.read_text() == "mine"
