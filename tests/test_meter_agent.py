import contextlib
from pathlib import Path
from typing import Any, Literal

import pytest
from agents import TOPICS, agent, write_config
from cars import NS, Car, HandClock, HandSource
from config_files import MINIMAL, config_file
from meters import RunningCounter, Sysfs
from wire_fleet import task, wire_fleet

from agent.check.finding import Finding
from agent.check.meter import meter
from agent.energy import Energy
from agent.guard import Guard
from agent.meter_settings import MeterSettings
from agent.policy.settings import PolicySettings
from agent.policy.verdict import Policy
from agent.protocol.messages import EnergySource, Limits, TaskState
from agent.protocol.reasons import Reason
from agent.settings import ConfigError, load
from agent.station import GateShut
from backends.kernel import Spent
from backends.process import RunDone
from firmware_shims import vss
from firmware_shims.power.meter import Scope
from fleet.broker import Broker

IDLE_W = 5.0
SLOW_US = 60_000


def settings(use: str, covers: tuple[str, ...] = (), **options: Any) -> MeterSettings:
    return MeterSettings.model_validate({"use": use, "covers": covers, "options": options})


class Bench:
    """An agent's meter with a car and a computer beside it, and a clock by hand."""

    def __init__(self, folder: Path, chosen: MeterSettings | None = None, *, on_pack: bool = False) -> None:
        self.clock = HandClock()
        self.counter = Sysfs(folder).package("intel-rapl:0", "package-0")
        self.joules = 0.0
        car = Car()
        car.values |= {vss.CHARGE_LINE_POWER: 0.0, vss.PACK_CURRENT: -0.2} if on_pack else {}
        car.values[vss.SOC] = 90.0
        policy = PolicySettings(
            require_grid_proof=not on_pack,
            settle_s=0,
            grid_proof_s=0,
            pack_budget_pct_per_day=5 if on_pack else 0,
        )
        source = HandSource()
        self.guard = Guard(
            Policy(policy, frozenset(source.stale_after_s), 60.0), [source], self.clock, lambda *_: None
        )
        self.guard.update(car.readings(self.clock()))
        self.guard.heard(source.name, self.clock())
        assert self.guard.verdict.on_pack is on_pack
        assert self.guard.verdict.allowed
        self.energy = Energy(chosen or settings("rapl", root=folder), self.guard, self.clock)
        self.energy.look()

    def pass_time(self, seconds: float, watts: float) -> None:
        owner = self.energy._owner
        assert owner is not None
        for _ in range(round(seconds / 0.1)):
            owner.sample()
            self.joules += watts * 0.1
            self.clock.forward(0.1)
            self.counter.write_text(f"{round(self.joules * 1e6)}\n")

    def done(
        self,
        seconds: float,
        joules: float | None = None,
        cpu_s: float = 0.0,
        source: Literal["counter", "model"] = "counter",
    ) -> RunDone:
        end_ns = self.clock()
        return RunDone(Spent(end_ns - int(seconds * NS), end_ns, joules, source), cpu_s)


def test_a_run_is_charged_by_the_counter_of_the_computer(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.pass_time(10, IDLE_W)
    with bench.energy.metered("cpu") as metered:
        bench.pass_time(2, IDLE_W + 20)
        spent = metered.spending(bench.done(2))
    assert spent.source is EnergySource.COUNTER
    assert spent.energy_j == pytest.approx(40.0)
    assert spent.idle_j == pytest.approx(10.0)
    assert (spent.device_s, spent.pack_j) == (2.0, 0.0)
    baseline = bench.energy.baseline
    assert baseline is not None
    assert baseline.watts == pytest.approx(IDLE_W)


def test_what_was_taken_from_the_pack_is_told_as_that(tmp_path: Path) -> None:
    bench = Bench(tmp_path, on_pack=True)
    bench.pass_time(10, IDLE_W)
    with bench.energy.metered("cpu") as metered:
        bench.pass_time(1, IDLE_W + 20)
        spent = metered.spending(bench.done(1))
    assert spent.pack_j == spent.energy_j == pytest.approx(20.0)


def test_a_device_that_counts_its_own_joules_is_believed_before_the_meter(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.pass_time(10, IDLE_W)
    with bench.energy.metered("cpu") as metered:
        bench.pass_time(1, IDLE_W + 20)
        spent = metered.spending(bench.done(1, joules=12.5))
    assert (spent.source, spent.energy_j, spent.idle_j) == (EnergySource.COUNTER, 12.5, None)


def test_what_a_device_predicts_is_told_as_a_model_and_never_before_what_was_measured(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.pass_time(10, IDLE_W)
    with bench.energy.metered("fsd") as metered:
        bench.pass_time(1, IDLE_W + 20)
        measured = metered.spending(bench.done(1, joules=12.5, source="model"))
    assert measured.source is EnergySource.COUNTER
    assert measured.energy_j == pytest.approx(20.0)
    unmetered = Bench(tmp_path / "other", settings("none"))
    with unmetered.energy.metered("fsd") as metered:
        predicted = metered.spending(unmetered.done(1, joules=12.5, source="model"))
    assert (predicted.source, predicted.energy_j) == (EnergySource.MODEL, 12.5)


@pytest.mark.parametrize("lie", [-1.0, float("nan"), float("inf")])
def test_a_device_that_counts_nonsense_has_not_counted(tmp_path: Path, lie: float) -> None:
    bench = Bench(tmp_path)
    bench.pass_time(10, IDLE_W)
    with bench.energy.metered("cpu") as metered:
        bench.pass_time(1, IDLE_W + 20)
        assert metered.spending(bench.done(1, joules=lie)).energy_j == pytest.approx(20.0)


def test_work_that_the_meter_does_not_measure_has_no_joules(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.pass_time(10, IDLE_W)
    with bench.energy.metered("nvidia") as metered:
        bench.pass_time(1, IDLE_W + 20)
        spent = metered.spending(bench.done(1))
    assert (spent.source, spent.energy_j, spent.idle_j) == (EnergySource.NONE, None, None)


def test_a_run_that_was_given_up_is_charged_to_nobody(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.pass_time(10, IDLE_W)
    with contextlib.suppress(GateShut), bench.energy.metered("cpu"):
        bench.pass_time(1, IDLE_W + 30)
        raise GateShut
    bench.pass_time(1, IDLE_W)
    with bench.energy.metered("cpu") as metered:
        bench.pass_time(1, IDLE_W + 20)
        assert metered.spending(bench.done(1)).energy_j == pytest.approx(20.0, rel=0.05)


def test_a_meter_that_fails_leaves_runs_without_joules_and_never_with_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.pass_time(10, IDLE_W)
    bench.counter.unlink()
    with bench.energy.metered("cpu") as metered:
        owner = bench.energy._owner
        assert owner is not None
        owner.sample()
        bench.clock.forward(1)
        spent = metered.spending(bench.done(1))
    assert (spent.source, spent.energy_j) == (EnergySource.NONE, None)
    assert bench.energy.source is EnergySource.NONE
    assert "energy_uj" in bench.energy.why


def test_a_model_knows_cpu_seconds_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path, settings("model", watts_per_core=4.0))
    with bench.energy.metered("cpu") as metered:
        spent = metered.spending(bench.done(1, cpu_s=0.5))
    assert (spent.source, spent.energy_j, spent.idle_j) == (EnergySource.MODEL, 2.0, None)
    assert bench.energy.source is EnergySource.MODEL


def test_without_a_meter_there_are_no_joules(tmp_path: Path) -> None:
    bench = Bench(tmp_path, MeterSettings())
    with bench.energy.metered("cpu") as metered:
        spent = metered.spending(bench.done(1, cpu_s=0.5))
    assert (spent.source, spent.energy_j, spent.pack_j) == (EnergySource.NONE, None, None)


def metered_by(folder: Path) -> str:
    return f'[meter]\nuse = "rapl"\n[meter.options]\nroot = "{folder}"\n'


async def test_a_task_is_told_what_it_cost_by_the_counter_of_the_car(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(
        tmp_path, iotcore.port, run_us=SLOW_US, settle_s=3, extra=metered_by(tmp_path / "sys")
    )
    with RunningCounter(Sysfs(tmp_path / "sys"), IDLE_W) as computer:
        async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
            energy = car.service.energy
            await car.until(lambda: (base := energy.baseline) and base.windows >= 3, "an idle baseline")
            fleet.send(task("night-1", count=40))
            await car.until(lambda: car.service.executor.running, "work")
            computer.watts = IDLE_W + 20
            await car.until_rows(40)
            computer.watts = IDLE_W
            await fleet.until(lambda: fleet.is_final("night-1"), "its results")
    usages = [result.usage for result, *_ in fleet.results]
    device_s = sum(usage.device_s for usage in usages)
    assert {usage.energy_source for usage in usages} == {EnergySource.COUNTER}
    active_j = sum(usage.energy_j or 0.0 for usage in usages)
    assert active_j == pytest.approx(20 * device_s, rel=0.5)
    assert sum(usage.grid_j or 0.0 for usage in usages) == pytest.approx(active_j)
    assert sum(usage.pack_j or 0.0 for usage in usages) == 0


async def test_a_limit_on_energy_that_cannot_be_watched_any_more_gives_the_task_back(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(
        tmp_path, iotcore.port, run_us=SLOW_US, settle_s=3, extra=metered_by(tmp_path / "sys")
    )
    computer = RunningCounter(Sysfs(tmp_path / "sys"), IDLE_W)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        with computer:
            await car.until(lambda: car.service.energy.baseline, "an idle baseline")
            fleet.send(task("night-1", count=400, limits=Limits(energy_j=1000.0)))
            await car.until_rows(4)
        computer.file.unlink()
        released = await fleet.heard_event("night-1", TaskState.RELEASED)
        assert released.rows_done >= 4
        assert released.reason is not None
        assert released.reason.code is Reason.BACKEND_UNUSABLE
        assert "no meter has measured" in released.reason.text
        fleet.send(task("night-2", count=2, limits=Limits(energy_j=1000.0)))
        rejected = await fleet.heard_event("night-2", TaskState.REJECTED)
        assert rejected.reason is not None
        assert rejected.reason.code is Reason.LIMIT_ENERGY


async def checked(folder: Path, more: str, base: str = MINIMAL) -> Finding:
    chosen = load(config_file(folder, more, base), {})
    return await meter(chosen, chosen.open_signals(HandClock()))


async def test_check_shows_the_power_that_the_meter_sees_now(tmp_path: Path) -> None:
    with RunningCounter(Sysfs(tmp_path), 12.0):
        found = await checked(tmp_path, metered_by(tmp_path))
    assert found.ok, found
    assert found.name == "rapl package-0"
    assert found.text.endswith("counted, of the processor packages, without memory; covers null")


@pytest.mark.parametrize(
    ("section", "problem", "fix"),
    [
        ("use = 'rapl'\n[meter.options]\nroot = '{folder}'", "no RAPL here", "load intel_rapl_msr"),
        (
            "use = 'nvml'\n[meter.options]\nlibrary = '{folder}/libnvidia-ml.so.1'",
            "cannot be loaded",
            "NVIDIA's driver",
        ),
        (
            "use = 'ina3221'\n[meter.options]\nrails = ['VDD_IN']\nroot = '{folder}'",
            "ina3221:VDD_IN does not answer",
            "write in options",
        ),
        (
            "use = 'rapl'\ncovers = ['cup']",
            "covers cup, which is no backend here",
            "correct meter.covers: null",
        ),
    ],
)
async def test_check_says_why_a_meter_cannot_be_used_and_what_to_do(
    tmp_path: Path, section: str, problem: str, fix: str
) -> None:
    found = await checked(tmp_path, f"[meter]\n{section.replace('{folder}', str(tmp_path))}\n")
    assert not found.ok
    assert problem in found.text
    assert fix in found.fix


async def test_check_finds_a_counter_that_stands_still(tmp_path: Path) -> None:
    Sysfs(tmp_path).package("intel-rapl:0", "package-0", 5_000_000)
    found = await checked(tmp_path, metered_by(tmp_path))
    assert "has not counted on" in found.text


async def test_check_looks_for_the_signals_of_the_pack(tmp_path: Path) -> None:
    more = "[meter]\nuse = 'pack'\n"
    assert (await checked(tmp_path, more)).ok
    scenario = tmp_path / "no_pack.toml"
    scenario.write_text(f'[initial]\n"{vss.SPEED}" = 0\n')
    only_speed = f'shim = "scenario"\noptions.file = "{scenario}"'
    found = await checked(tmp_path, more, MINIMAL.replace('shim = "scenario"', only_speed))
    assert not found.ok
    assert vss.PACK_VOLTAGE in found.text


async def test_check_says_that_a_model_is_an_estimate(tmp_path: Path) -> None:
    found = await checked(tmp_path, "[meter]\nuse = 'model'\n[meter.options]\nwatts_per_core = 4\n")
    assert found.text == "CPU seconds x 4 W per core: an estimate, reported as a model"


def test_the_environment_can_set_options_of_the_meter(tmp_path: Path) -> None:
    path = config_file(tmp_path, "[meter]\nuse = 'model'\n[meter.options]\nwatts_per_core = 4\n")
    assert load(path, {"PARKWATT_METER__OPTIONS__WATTS_PER_CORE": "2.5"}).meter.watts_per_core == 2.5


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            "use = 'rapl'\n[meter.options]\nrot = '/sys'",
            "meter.options.rot: unknown key; did you mean 'root'?",
        ),
        ("use = 'hwmon'", "meter.options.sensors: missing; add it"),
        ("use = 'hwmon'\n[meter.options]\nsensors = ['amdgpu']", "'amdgpu' is no sensor: write thermal:TYPE"),
        ("use = 'ina3221'\n[meter.options]\nrails = ['VDD_IN', 'VDD_SOC']", "would count twice"),
        ("use = 'rappl'", "meter.use = 'rappl': should be 'none', 'model'"),
    ],
)
def test_a_wrong_meter_is_refused_with_its_key(tmp_path: Path, section: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(config_file(tmp_path, f"[meter]\n{section}\n"), {})
    (line,) = refused.value.problems
    assert problem in line


def test_a_meter_of_gpus_covers_gpus_and_one_of_processors_the_rest_unless_told() -> None:
    default, told = settings("nvml"), settings("nvml", covers=("cpu",))
    assert [default.covered(name, Scope.GPU) for name in ("nvidia", "cpu")] == [True, False]
    assert [default.covered(name, Scope.PACKAGE) for name in ("nvidia", "cpu")] == [False, True]
    assert [default.covered(name, Scope.COMPUTER) for name in ("nvidia", "cpu")] == [True, True]
    assert [told.covered(name, Scope.GPU) for name in ("nvidia", "cpu")] == [False, True]
