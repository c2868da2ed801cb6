"""The KUKSA source against a simulated databroker, over gRPC on loopback."""

import logging
import math
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kuksa.val.v2 import types_pb2
from kuksa_client.grpc import VSSClient
from listening import WITHIN_S, Ear, listening

from agent.signals import Signals
from benchmarks.certificates import Authority
from firmware_shims import vss
from firmware_shims.clock import boottime_ns
from firmware_shims.kuksa import KuksaSource
from firmware_shims.kuksa_options import KuksaOptions
from firmware_shims.reading import Quality, Reading, Snapshot, Value
from firmware_shims.registry import open_source
from firmware_shims.simulated_kuksa import VSS_VERSIONS, SimulatedBroker, Tls

NEVER_STALE_HERE_S = 30.0
"""For tests of something else: a busy machine makes nothing stale."""
HOUR_NS = 3_600_000_000_000
NOT_IN_THE_SCENARIO = (
    vss.CHIP_TEMPERATURE,
    vss.TIME_TO_COMPLETE,
    vss.GRID_LIMIT,
    vss.LATITUDE,
    vss.LONGITUDE,
)


class Fusion(Ear):
    """An ear that judges ages as the agent does."""

    def __init__(self, source: KuksaSource) -> None:
        super().__init__()
        self._signals = Signals([source])

    def update(self, readings: Sequence[Reading]) -> None:
        with self._news:
            self._signals.update(readings)
        super().update(readings)

    def heard(self, source: str, now_ns: int) -> None:
        with self._news:
            self._signals.heard(source, now_ns)
        super().heard(source, now_ns)

    def snapshot(self) -> Snapshot:
        with self._news:
            return self._signals.snapshot(boottime_ns())

    def wait_for_quality(self, path: str, quality: Quality) -> None:
        self.wait_until(lambda: self.snapshot()[path].quality is quality, f"{path} {quality.value}")


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def broker() -> Iterator[SimulatedBroker]:
    with SimulatedBroker.parked_and_charging() as broker:
        yield broker


def source_for(port: int, stale_after_s: float = NEVER_STALE_HERE_S, **options: Any) -> KuksaSource:
    """A source that wants everything of a broker that the parked car of the scenario has."""
    ages = dict.fromkeys(KuksaOptions().ages(), stale_after_s)
    chosen = {"port": port, "without": NOT_IN_THE_SCENARIO, "stale_after_s": ages, **options}
    source = open_source("kuksa", name="car", map=None, options=chosen, clock=boottime_ns)
    assert isinstance(source, KuksaSource)
    return source


def wait_for_everything(source: KuksaSource, ear: Ear) -> None:
    ear.wait_until(lambda: ear.has_all(tuple(source.stale_after_s)), "a good reading of every signal")


def wait_for_log(caplog: pytest.LogCaptureFixture, says: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while says not in caplog.text:
        assert time.monotonic() < deadline, f"not logged within {WITHIN_S} s: {says}"
        time.sleep(0.01)


@pytest.mark.parametrize("version", VSS_VERSIONS)
def test_a_parked_and_charging_car_is_read_from_every_vss(ear: Ear, version: int) -> None:
    with (
        SimulatedBroker.parked_and_charging(version) as broker,
        listening(source := source_for(broker.port), ear),
    ):
        wait_for_everything(source, ear)
        assert {path: ear.latest(path).value for path in source.stale_after_s} == {
            vss.LOW_VOLTAGE_STATE: "OFF",
            vss.GEAR: vss.GEAR_PARK,
            vss.SPEED: 0,
            vss.BRAKE: 0,
            vss.DRIVER_SEAT: False,
            vss.SOC: pytest.approx(64),
            vss.IS_CHARGING: True,
            vss.CABLE_CONNECTED: True,
            vss.CHARGE_LINE_POWER: pytest.approx(7200),
            vss.PACK_VOLTAGE: pytest.approx(380),
            vss.PACK_CURRENT: pytest.approx(15),
            vss.PACK_TEMPERATURE_MIN: 22,
            vss.PACK_TEMPERATURE_MAX: 24,
            vss.LOW_VOLTAGE_BATTERY: pytest.approx(13.6),
            vss.AMBIENT_TEMPERATURE: 18,
            vss.DRIVER_LOCK: True,
            vss.COMPUTE_RAIL: "ON",
            **dict.fromkeys(vss.DOORS, False),
        }


SEAT = "Vehicle.Cabin.Seat.Row1.DriverSide"
CHARGING = "Vehicle.Powertrain.TractionBattery.Charging"


@pytest.mark.parametrize(
    ("version", "seat", "cable"),
    [
        (4, f"{SEAT}.IsOccupied", f"{CHARGING}.IsChargingCableConnected"),
        (5, f"{SEAT}.IsOccupied", f"{CHARGING}.ChargingPort.AnyPosition.IsChargingCableConnected"),
        (6, f"{SEAT}.OccupancyStatus", f"{CHARGING}.ChargingPort.AnyPosition.IsChargingCableConnected"),
    ],
)
def test_the_simulated_broker_has_the_paths_of_its_vss(version: int, seat: str, cable: str) -> None:
    with SimulatedBroker.parked_and_charging(version) as broker:
        assert (broker.path(vss.DRIVER_SEAT), broker.path(vss.CABLE_CONNECTED)) == (seat, cable)
        for signal in set(KuksaOptions().ages()) - {vss.DRIVER_SEAT, vss.CABLE_CONNECTED}:
            assert broker.path(signal) == signal


@pytest.mark.parametrize("version", VSS_VERSIONS)
def test_an_owner_who_comes_back_is_a_cue_in_every_vss(ear: Ear, version: int) -> None:
    with (
        SimulatedBroker.parked_and_charging(version) as broker,
        listening(source := source_for(broker.port), ear),
    ):
        wait_for_everything(source, ear)
        cues: dict[str, Value] = {
            vss.DRIVER_LOCK: False,
            vss.DRIVER_DOOR: True,
            vss.DRIVER_SEAT: True,
            vss.LOW_VOLTAGE_STATE: "ACC",
            vss.COMPUTE_RAIL: "GOING_DOWN",
            vss.CABLE_CONNECTED: False,
        }
        for signal, value in cues.items():
            before = len(ear.readings)
            broker.set(signal, value)
            cue = ear.wait_for(signal, value, after=before)
            assert cue.quality is Quality.GOOD
            assert cue.source == "car"


@pytest.mark.parametrize("version", VSS_VERSIONS)
def test_a_car_that_knows_when_it_is_charged_and_what_the_grid_leaves(ear: Ear, version: int) -> None:
    state: dict[str, Value] = {vss.TIME_TO_COMPLETE: 5400, vss.GRID_LIMIT: 40.0}
    without = sorted(set(KuksaOptions().ages()) - set(state))
    with (
        SimulatedBroker(state, version) as broker,
        listening(source := source_for(broker.port, without=without), ear),
    ):
        wait_for_everything(source, ear)
        assert {path: ear.latest(path).value for path in source.stale_after_s} == state
        assert broker.path(vss.TIME_TO_COMPLETE) == f"{CHARGING}.TimeToComplete"


def test_what_has_been_heard_is_said_several_times_a_second(broker: SimulatedBroker, ear: Ear) -> None:
    with listening(source_for(broker.port), ear):
        ear.wait_until(lambda: len(ear.heard_ns) > 10, "ten times heard")
    assert ear.heard_ns == sorted(ear.heard_ns)


def test_a_provider_that_died_makes_every_signal_stale(broker: SimulatedBroker) -> None:
    source = source_for(broker.port, stale_after_s=1.0)
    fusion = Fusion(source)
    with listening(source, fusion):
        wait_for_everything(source, fusion)
        broker.silence()
        for signal in source.stale_after_s:
            fusion.wait_for_quality(signal, Quality.STALE)
        heard = len(fusion.heard_ns)
        fusion.wait_until(lambda: len(fusion.heard_ns) > heard, "the broker to be heard on")
        broker.wake()
        fusion.wait_for_quality(vss.GEAR, Quality.GOOD)


def test_what_a_dead_provider_left_behind_is_never_fresh(broker: SimulatedBroker, ear: Ear) -> None:
    broker.silence()
    broker.publish(
        broker.path(vss.DRIVER_DOOR), types_pb2.Value(bool=False)
    )  # stamped this very moment: or an hour ago,
    with listening(
        source_for(broker.port, on_change={vss.DRIVER_DOOR: vss.SPEED}), ear
    ):  # by a clock set back since
        ear.wait_until(lambda: len(ear.heard_ns) > 3, "the stream to be up")
    assert {reading.quality for reading in ear.readings} == {Quality.STALE}
    assert ear.latest(vss.DRIVER_DOOR).value is False


def test_a_door_that_is_published_on_change_only_goes_stale(broker: SimulatedBroker) -> None:
    broker.only_on_change(vss.DRIVER_DOOR)
    source = source_for(broker.port, stale_after_s=1.0)
    fusion = Fusion(source)
    with listening(source, fusion):
        broker.set(vss.DRIVER_DOOR, False)
        fusion.wait_for_quality(vss.DRIVER_DOOR, Quality.STALE)


def test_a_door_is_as_fresh_as_the_witness_of_its_provider(broker: SimulatedBroker) -> None:
    broker.only_on_change(vss.DRIVER_DOOR)
    source = source_for(broker.port, stale_after_s=1.0, on_change={vss.DRIVER_DOOR: vss.SPEED})
    fusion = Fusion(source)
    with listening(source, fusion):
        fusion.wait_for_quality(vss.DRIVER_DOOR, Quality.GOOD)
        first = fusion.latest(vss.DRIVER_DOOR)

        def outlived() -> bool:
            return fusion.snapshot()[vss.DRIVER_DOOR].stamp_ns - first.stamp_ns > 3_000_000_000

        fusion.wait_until(outlived, "the closed door to outlive its limit three times")
        fusion.wait_for_quality(vss.DRIVER_DOOR, Quality.GOOD)
        broker.silence()
        fusion.wait_for_quality(vss.DRIVER_DOOR, Quality.STALE)


def test_a_witness_that_the_broker_does_not_have_vouches_for_nothing(
    broker: SimulatedBroker, ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    broker.only_on_change(vss.DRIVER_DOOR)
    with listening(source_for(broker.port, on_change={vss.DRIVER_DOOR: "Vehicle.Heartbeat"}), ear):
        ear.wait_for(vss.GEAR, vss.GEAR_PARK)
        ear.wait_until(lambda: len(ear.heard_ns) > 3, "the stream to be up")
    assert ear.latest(vss.DRIVER_DOOR).quality is Quality.STALE
    assert "no Vehicle.Heartbeat, the witness of" in caplog.text


WRONG = [
    (vss.DRIVER_DOOR, types_pb2.Value(string="false")),
    (vss.DRIVER_DOOR, types_pb2.Value(int32=0)),
    (vss.DRIVER_SEAT, types_pb2.Value(string="UNKNOW")),
    (vss.DRIVER_SEAT, types_pb2.Value(bool=False)),
    (vss.GEAR, types_pb2.Value(bool=True)),
    (vss.GEAR, types_pb2.Value(float=126.0)),
    (vss.GEAR, types_pb2.Value(int32=1000)),
    (vss.SPEED, types_pb2.Value(float=math.nan)),
    (vss.SPEED, types_pb2.Value(float=-math.inf)),
    (vss.SPEED, types_pb2.Value(string="0")),
    (vss.SOC, types_pb2.Value(float=150)),
    (vss.LOW_VOLTAGE_STATE, types_pb2.Value(string="UNDEFINED")),
    (vss.LOW_VOLTAGE_STATE, types_pb2.Value(string_array=types_pb2.StringArray(values=["OFF"]))),
    (vss.DRIVER_LOCK, types_pb2.Value(string="LOCKED")),
    (vss.COMPUTE_RAIL, types_pb2.Value(string="UP")),
    (vss.PACK_TEMPERATURE_MAX, types_pb2.Value()),
    (vss.PACK_TEMPERATURE_MAX, None),
]


def test_what_cannot_be_a_value_is_invalid(broker: SimulatedBroker, ear: Ear) -> None:
    with listening(source := source_for(broker.port), ear):
        wait_for_everything(source, ear)
        broker.silence()
        for signal, value in WRONG:
            before = len(ear.readings)
            broker.publish(broker.path(signal), value)
            assert ear.wait_for(signal, None, after=before).quality is Quality.INVALID, (signal, value)


def test_a_stamp_that_cannot_be_is_invalid(broker: SimulatedBroker, ear: Ear) -> None:
    with listening(source := source_for(broker.port), ear):
        wait_for_everything(source, ear)
        broker.silence()
        for stamp_ns in (None, time.time_ns() + HOUR_NS, 2**62):
            before = len(ear.readings)
            broker.publish(broker.path(vss.GEAR), types_pb2.Value(int32=126), stamp_ns)
            assert ear.wait_for(vss.GEAR, None, after=before).quality is Quality.INVALID
        before = len(ear.readings)
        broker.publish(broker.path(vss.GEAR), types_pb2.Value(int32=126), time.time_ns() - HOUR_NS)
        old = ear.wait_for(vss.GEAR, vss.GEAR_PARK, after=before)
        assert old.quality is Quality.STALE
        assert boottime_ns() - old.stamp_ns >= HOUR_NS


def test_a_wall_clock_that_is_set_makes_nothing_look_fresh(ear: Ear) -> None:
    ahead_ns = 0

    def wall_ns() -> int:
        return time.time_ns() + ahead_ns

    with SimulatedBroker.parked_and_charging(wall_ns=wall_ns) as broker:
        options = KuksaOptions(port=broker.port, without=NOT_IN_THE_SCENARIO)
        with listening(source := KuksaSource("car", options, boottime_ns, wall_ns), ear):
            wait_for_everything(source, ear)
            for step_ns in (-HOUR_NS, 2 * HOUR_NS):
                before, set_ns = len(ear.readings), boottime_ns()
                ahead_ns += step_ns
                ear.wait_until(partial(reads_gear_well, ear, before), "fresh readings again")
                later = [reading for reading in ear.readings[before:] if reading.quality is Quality.GOOD]
                assert min(reading.stamp_ns for reading in later) > set_ns - 1_000_000_000


def reads_gear_well(ear: Ear, after: int) -> bool:
    good = [r for r in ear.readings[after:] if r.path == vss.GEAR and r.quality is Quality.GOOD]
    return len(good) > 3


def test_a_signal_that_the_broker_does_not_have_is_invalid_and_named(
    ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        SimulatedBroker({vss.SPEED: 0, vss.GEAR: vss.GEAR_PARK}) as broker,
        listening(source_for(broker.port), ear),
    ):
        ear.wait_for(vss.SPEED, 0)
        assert ear.latest(vss.DRIVER_DOOR).quality is Quality.INVALID
        broker.drop_clients()
        ear.wait_for(vss.SPEED, 0, after=len(ear.readings))
    warnings = [record.message for record in caplog.records if "options.without" in record.message]
    assert len(warnings) == 1
    assert vss.DRIVER_DOOR in warnings[0]


def test_a_broker_that_restarts_is_found_again(ear: Ear) -> None:
    with SimulatedBroker.parked_and_charging() as broker:
        port = broker.port
        source = source_for(port)
        with listening(source, ear):
            wait_for_everything(source, ear)
            broker.close()
            heard = len(ear.heard_ns)
            with SimulatedBroker.parked_and_charging(vss_version=4, port=port) as other:
                before = len(ear.readings)
                ear.wait_until(lambda: len(ear.heard_ns) > heard + 3, "the new broker to be heard")
                other.set(vss.DRIVER_SEAT, True)
                assert ear.wait_for(vss.DRIVER_SEAT, True, after=before).quality is Quality.GOOD


def test_a_broker_that_is_not_there_is_not_heard_and_found_later(
    ear: Ear, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with caplog.at_level(logging.WARNING), listening(source_for(port), ear):
        wait_for_log(caplog, "UNAVAILABLE")
        assert ear.heard_ns == []
        with SimulatedBroker.parked_and_charging(port=port):
            ear.wait_for(vss.GEAR, vss.GEAR_PARK)


def test_a_broker_that_hangs_is_not_heard(broker: SimulatedBroker, ear: Ear) -> None:
    with listening(source := source_for(broker.port), ear):
        wait_for_everything(source, ear)
        ear.wait_until(lambda: bool(ear.heard_ns), "the broker to be heard")
        broker.hang()
        hung_ns = boottime_ns()
        before = len(ear.readings)

        def anew() -> bool:
            return any(reading.quality is Quality.STALE for reading in ear.readings[before:])

        ear.wait_until(anew, "another connection")
        assert all(heard_ns < hung_ns + 500_000_000 for heard_ns in ear.heard_ns)
        broker.hang(False)
        ear.wait_until(lambda: ear.heard_ns[-1] > hung_ns + 500_000_000, "the broker to be heard again")


def test_a_wrong_token_is_refused_and_a_renewed_one_is_taken(
    ear: Ear, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "kuksa.token"
    with SimulatedBroker.parked_and_charging(token="read:Vehicle") as broker:  # noqa: S106 - not a real one
        with caplog.at_level(logging.WARNING), listening(source_for(broker.port, token_file=str(token)), ear):
            for content, says in ((None, "No such file"), ("expired", "UNAUTHENTICATED")):
                if content is not None:
                    token.write_text(content)
                wait_for_log(caplog, says)
            assert ear.readings == []
            assert ear.heard_ns == []
            token.write_text("read:Vehicle\n")
            ear.wait_for(vss.GEAR, vss.GEAR_PARK)
        assert "read:Vehicle" not in caplog.text


def test_tls_with_the_brokers_authority_and_no_other(
    ear: Ear, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    with SimulatedBroker.parked_and_charging(tls=Tls(*ours.issue("broker"))) as broker:
        with listening(source_for(broker.port, ca_file=str(ours.path)), ear):
            ear.wait_for(vss.GEAR, vss.GEAR_PARK)
        stranger = Ear()
        with (
            caplog.at_level(logging.WARNING),
            listening(source_for(broker.port, ca_file=str(other.path)), stranger),
        ):
            wait_for_log(caplog, "UNAVAILABLE")
        assert stranger.readings == []


def test_a_source_stops_at_once_while_nobody_answers(ear: Ear) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with listening(source_for(silent.getsockname()[1]), ear):
            pass
        assert time.monotonic() - began < 10
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("pulse-")]


@pytest.mark.parametrize("call", ["update", "heard"])
def test_a_kill_that_fails_is_not_taken_for_a_missing_broker(broker: SimulatedBroker, call: str) -> None:
    class Sink(Ear):
        def update(self, readings: Sequence[Reading]) -> None:
            super().update(readings)
            if call == "update":
                raise PermissionError("kill")

        def heard(self, source: str, now_ns: int) -> None:
            super().heard(source, now_ns)
            if call == "heard":
                raise PermissionError("kill")

    with pytest.raises(PermissionError, match="kill"):
        source_for(broker.port).run(Sink(), threading.Event())


def test_the_simulated_broker_speaks_to_kuksas_own_client(broker: SimulatedBroker) -> None:
    path = broker.path(vss.DRIVER_SEAT)
    with VSSClient("127.0.0.1", broker.port, ensure_startup_connection=False) as client:
        updates = client.subscribe_current_values([path])
        assert next(updates)[path].value == "EMPTY"
        broker.set(vss.DRIVER_SEAT, True)
        assert "OCCUPIED" in {update[path].value for update, _ in zip(updates, range(3), strict=False)}
