"""Joules of a row: from a meter whose power is known, from the device, from a model, and from nowhere."""

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cars import HandClock
from meters import HandMeter, RunningCounter, Sysfs
from stalls import stalls

from benchmarks.throughput import meters
from benchmarks.throughput.catalogue import UnknownNameError
from benchmarks.throughput.energy import Idle, Metering, Span, metering, span
from benchmarks.throughput.joules import Account, Metered, account
from benchmarks.throughput.play import Closed, Played, Script
from benchmarks.throughput.processes import Busy, cpu_s, others_share, peak_rss_bytes
from benchmarks.throughput.turns import Pair, RawRound, RawTurn
from firmware_shims.clock import boottime_ns
from firmware_shims.power.meter import MeterFailed, MeterReading, Scope
from firmware_shims.power.model import CpuModelMeter
from firmware_shims.power.rapl import RaplMeter
from firmware_shims.power.sampled import SampledMeter

IDLE_W = 4.0
WORK_W = 20.0
TURN_S = 0.5
INFERENCES = 100


def raw_turn(counted: Span | None, joules: float | None = None, source: str = "") -> RawTurn:
    return RawTurn(Played(INFERENCES, TURN_S, 0.4, [5_000_000] * INFERENCES, joules, source), counted, 0.01)


def raw(joules_counted: float | None, own: float | None = None, source: str = "") -> RawRound:
    counted = None if joules_counted is None else Span(joules_counted, TURN_S)
    return RawRound(raw_turn(counted, own, source), raw_turn(counted, own, source), 0.0)


@pytest.fixture
async def owner() -> Metering:
    async with metering(HandMeter(HandClock())) as owned:
        return owned


def settled(rounds: list[RawRound], owner: Metering | None, model: CpuModelMeter | None = None) -> Account:
    idle = Idle(IDLE_W, 0.1)
    return account(rounds, Metered("fsd emulator", owner, idle, idle, model))


def test_active_joules_are_what_lies_above_idle(owner: Metering) -> None:
    energy = settled([raw((IDLE_W + WORK_W) * TURN_S)] * 5, owner).energy
    assert energy.source == "counter"
    assert energy.joules_per_inference is not None
    assert energy.joules_per_inference.value == pytest.approx(WORK_W * TURN_S / INFERENCES)
    assert energy.inferences_per_joule is not None
    assert energy.inferences_per_joule.value == pytest.approx(INFERENCES / (WORK_W * TURN_S))
    assert (energy.idle_before_w, energy.idle_after_w, energy.drift_w) == (IDLE_W, IDLE_W, 0.0)
    assert energy.resolution_j == 1e-6


def test_a_drift_of_the_idle_power_is_told_and_halved(owner: Metering) -> None:
    rounds = [raw((IDLE_W + 1 + WORK_W) * TURN_S)] * 5
    found = account(rounds, Metered("", owner, Idle(IDLE_W, 0.1), Idle(IDLE_W + 2, 0.1), None))
    assert found.energy.joules_per_inference is not None
    assert found.energy.joules_per_inference.value == pytest.approx(WORK_W * TURN_S / INFERENCES)
    assert found.marks == ("idle drift: +2 W beside 20 W of work, limit 5%: let the machine come to rest",)


def test_work_that_is_no_more_than_a_step_of_the_meter_is_marked(owner: Metering) -> None:
    found = settled([raw(IDLE_W * TURN_S + 2e-6)] * 5, owner)
    assert found.marks == ("below meter resolution: 2e-06 J a turn, steps of 1e-06 J",)


def test_noise_below_idle_is_kept_and_gives_no_inferences_per_joule(owner: Metering) -> None:
    found = settled([raw(IDLE_W * TURN_S + joules) for joules in (0.1, -0.2, 0.05, -0.1, 0.02)], owner)
    assert [each.ours.joules for each in found.rounds] == pytest.approx([0.1, -0.2, 0.05, -0.1, 0.02])
    assert found.energy.inferences_per_joule is None


def test_what_a_device_says_of_its_own_runs_wins_over_the_meter(owner: Metering) -> None:
    energy = settled([raw(99.0, own=0.5, source="model")] * 5, owner, CpuModelMeter(7)).energy
    assert (energy.source, energy.meter) == ("model", "fsd emulator")
    assert energy.joules_per_inference is not None
    assert energy.joules_per_inference.value == pytest.approx(0.5 / INFERENCES)


def test_sources_are_never_mixed_within_a_row(owner: Metering) -> None:
    one_turn_lost = [*[raw((IDLE_W + WORK_W) * TURN_S)] * 4, raw(None)]
    assert settled(one_turn_lost, owner).energy.source == "none"
    with_model = settled(one_turn_lost, owner, CpuModelMeter(7))
    assert with_model.energy.source == "model"
    assert [each.ours.joules for each in with_model.rounds] == pytest.approx([0.4 * 7] * 5)


def test_without_meter_and_model_there_are_no_joules() -> None:
    found = settled([raw(None)] * 5, None)
    assert found.energy.source == "none"
    assert found.energy.joules_per_inference is None
    assert all(each.ours.joules is None for each in found.rounds)


def test_a_model_is_told_as_one_with_its_watts() -> None:
    energy = settled([raw(None)] * 5, None, CpuModelMeter(7.5)).energy
    assert (energy.source, energy.meter) == ("model", "7.5 W x CPU seconds")


def test_a_counter_that_was_reset_within_a_turn_has_no_figure() -> None:
    with pytest.raises(MeterFailed, match="interrupted in the middle of a turn"):
        span(MeterReading(5.0, 1_000, 0), MeterReading(1.0, 3_000, 2_000))


@dataclass(eq=False)
class Sleeper:
    """A side that works for half a second without using a processor."""

    counter: RunningCounter
    pid: int = field(default_factory=os.getpid)

    async def play(self, script: Script) -> Played:
        assert isinstance(script, Closed)
        self.counter.watts += WORK_W
        await asyncio.sleep(TURN_S)
        self.counter.watts -= WORK_W
        return Played(INFERENCES, TURN_S, 0.0, [5_000_000] * INFERENCES)


async def test_a_counter_of_known_watts_gives_the_known_joules(tmp_path: Path) -> None:
    with RunningCounter(Sysfs(tmp_path), IDLE_W) as counter, stalls() as seen:
        async with metering(RaplMeter(boottime_ns, tmp_path)) as owner:
            pair = Pair(Sleeper(counter), None, owner)
            before = await pair.idle()
            for _ in range(4):
                await pair.round(Closed(TURN_S))
            found = account(pair.rounds, Metered("", owner, before, await pair.idle(), None))
    assert pair.meter_failure == ""
    assert before is not None
    # a busy machine turns the counter a little late: the exact account is checked by `self-check`
    within = 0.05 + seen.lost_s / TURN_S
    assert before.watts == pytest.approx(IDLE_W, rel=within)
    assert found.energy.meter == "rapl package-0"
    assert found.energy.joules_per_inference is not None
    assert found.energy.joules_per_inference.value == pytest.approx(WORK_W * TURN_S / INFERENCES, rel=within)


async def test_a_meter_that_fails_in_the_middle_costs_the_joules_and_not_the_row() -> None:
    meter = HandMeter(HandClock())
    async with metering(meter) as owner:
        pair = Pair(Still(), None, owner)
        meter.broken = "the sensor has gone"
        await pair.round(Closed(0.0))
        assert await pair.idle() is None
    assert pair.rounds[0].ours.counted is None
    assert pair.meter_failure == "the sensor has gone; plug it in"
    assert meter.closed == 1


@dataclass(eq=False)
class Still:
    """A side that does nothing."""

    pid: int = field(default_factory=os.getpid)

    async def play(self, script: Script) -> Played:
        assert isinstance(script, Closed)
        return Played(1, 0.1, 0.1, [100])


async def test_a_power_sensor_is_looked_at_while_a_long_turn_runs() -> None:
    meter = SampledMeter("sensor", Scope.COMPUTER, lambda: 12.0, boottime_ns, resolution_w=0.01)
    async with metering(meter) as owner:
        _, counted = await owner.during(asyncio.sleep(0.8))  # sampled only at its ends it would be a gap
    assert counted.watts == pytest.approx(12.0)


async def test_a_meter_that_does_not_answer_is_told_before_anything_is_measured() -> None:
    meter = HandMeter(HandClock(), broken="no sensor")
    with pytest.raises(MeterFailed, match="no sensor"):
        async with metering(meter):
            pytest.fail("nothing to own")


async def test_a_meter_is_owned_or_says_why_not_and_none_is_neither() -> None:
    meter = HandMeter(HandClock())
    async with meters.owned(meter) as (owner, failure):
        assert owner is not None
        assert failure is None
        assert owner.used.name == meter.name
    assert meter.closed == 1
    async with meters.owned(HandMeter(HandClock(), broken="no sensor")) as (owner, failure):
        assert owner is None
        assert failure is not None
        assert meters.why(failure) == "no sensor; plug it in"
    async with meters.owned(None) as nothing:
        assert nothing == (None, None)


@pytest.mark.parametrize("name", ["wattmeter", "rapl:1", "hwmon", "none:x"])
def test_a_meter_that_is_not_known_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"--meter {name}: not known: take auto, none, rapl"):
        meters.named(name, ["cpu"], boottime_ns)


def test_on_gpus_only_the_meter_is_the_gpus() -> None:
    for backends, name in ((["nvidia"], "nvml"), (["nvidia", "cpu"], "rapl")):
        meter = meters.named(meters.AUTO, backends, boottime_ns)
        assert meter is not None
        assert meter.name.startswith(name)
    assert meters.named("none", ["cpu"], boottime_ns) is None


def test_processor_time_of_others_is_told_from_ours() -> None:
    before = Busy(100.0, 10.0, 0.0)
    cores = os.cpu_count() or 1
    assert others_share(before, Busy(100.0 + cores, 10.0, 2.0)) == pytest.approx(0.5)
    assert others_share(before, Busy(100.0 + cores, 10.0 + cores, 2.0)) == 0.0
    assert others_share(before, Busy(101.0, 12.0, 2.0)) == 0.0, (
        "what is coarser than ours is not below nothing"
    )


def test_a_process_tells_its_processor_time_and_memory_to_whoever_started_it() -> None:
    work = "import time\nkept = bytearray(50_000_000)\nwhile time.process_time() < 0.3: pass\ninput()"
    process = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE)
    with process:
        deadline_s = time.monotonic() + 30
        while cpu_s(process.pid) < 0.3:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert cpu_s(process.pid) < 0.6, "an idle process takes no more"
        assert peak_rss_bytes(process.pid) > 50_000_000
        assert Busy.now([process.pid]).ours_s - Busy.now().ours_s == pytest.approx(
            cpu_s(process.pid), abs=0.05
        )
