"""Whom a car believes, and for how long: keys that come and go, clocks that are wrong, old messages that come again."""

import datetime as dt
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from agents import TOPICS, agent, write_config
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey
from wire_fleet import WireFleet, now, task, wire_fleet

from agent import trusted_keys
from agent.housekeeping import forget_old_tasks
from agent.protocol import framing, jws
from agent.protocol.keys import load_private_key, write_key_pair
from agent.protocol.messages import Drain, Event, Mode, Resume, Task, TaskState
from agent.protocol.reasons import Reason, Refused
from agent.signed_time import AHEAD_S, SignedTime
from agent.trusted_keys import TrustedKeys, look_into
from agent.wall_clock import LATE_S
from fleet.broker import Broker

HOUR_S = 3600.0
DAY_S = 86_400.0
LOOK_S = 0.02
BODY = b'{"any": "body"}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.mkdir()
    return path


def new_key(folder: Path, kid: str = "fleet") -> SigningKey:
    """Put the public key where the car looks; the private one, which cars never have, goes to the fleet."""
    (folder.parent / "fleet").mkdir(exist_ok=True)
    public, private = write_key_pair(folder.parent / "fleet", kid)
    (folder / public.name).write_bytes(public.read_bytes())
    return load_private_key(private)


def believes(keys: TrustedKeys, key: SigningKey, kid: str = "fleet") -> bool:
    line, body = jws.split(jws.sign(BODY, key, kid))
    assert line is not None
    try:
        return keys.verify(line, body) == kid
    except jws.SignatureRefused:
        return False


# The folder


def test_a_key_that_is_added_gets_in_and_one_that_is_removed_is_out(folder: Path) -> None:
    first = new_key(folder, "fleet-1")
    keys = TrustedKeys(folder, required=True)
    second = new_key(folder, "fleet-2")
    assert not believes(keys, second, "fleet-2")
    keys.refresh()
    assert believes(keys, first, "fleet-1")
    assert believes(keys, second, "fleet-2")
    (folder / "fleet-1.pem").unlink()
    keys.refresh()
    assert not believes(keys, first, "fleet-1")
    assert believes(keys, second, "fleet-2")


def test_a_key_that_is_replaced_under_its_name_is_out(folder: Path) -> None:
    old = new_key(folder)
    keys = TrustedKeys(folder, required=True)
    (folder.parent / "fleet/fleet.key").unlink()
    (folder.parent / "fleet/fleet.pem").unlink()
    new = new_key(folder)
    keys.refresh()
    assert believes(keys, new)
    assert not believes(keys, old)


def test_a_revoked_key_is_out_for_as_long_as_its_revocation_is_there(folder: Path) -> None:
    key = new_key(folder)
    (folder / "fleet.revoked").touch()
    assert "no usable key" in look_into(folder).problems[0]
    keys = TrustedKeys(folder, required=True)
    line, body = jws.split(jws.sign(BODY, key, "fleet"))
    assert line is not None
    with pytest.raises(jws.SignatureRefused, match="'fleet' is revoked") as refused:
        keys.verify(line, body)
    assert refused.value.reason is Reason.UNKNOWN_KEY
    (folder / "fleet.revoked").unlink()
    keys.refresh()
    assert believes(keys, key)


def test_a_revocation_under_a_wrong_name_is_a_problem_because_it_revokes_nothing(folder: Path) -> None:
    new_key(folder)
    (folder / "fleet.pem.revoked").touch()
    found = look_into(folder)
    assert list(found.keys) == ["fleet"]
    assert [problem for problem in found.problems if "name it <kid>.revoked" in problem]


def half_written(path: Path) -> None:
    path.write_bytes(b"-----BEGIN PUBLIC KEY-----\nMCow")


def replaceable(path: Path) -> None:
    path.write_bytes((path.parent / "fleet.pem").read_bytes())
    path.chmod(0o666)


def private(path: Path) -> None:
    path.write_bytes((path.parent.parent / "fleet/fleet.key").read_bytes())


@pytest.mark.parametrize("spoil", [half_written, replaceable, private, Path.mkdir])
def test_a_bad_key_file_is_named_once_and_costs_the_good_ones_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    key = new_key(folder)
    spoil(folder / "bad.pem")
    keys = TrustedKeys(folder, required=True)
    keys.refresh()
    (folder / "another.pem").write_bytes((folder / "fleet.pem").read_bytes())
    keys.refresh()
    assert believes(keys, key)
    assert believes(keys, key, "another")
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert str(folder / "bad.pem") in warning.getMessage()


def test_a_folder_that_others_may_write_holds_no_key(folder: Path) -> None:
    key = new_key(folder)
    folder.chmod(0o777)
    keys = TrustedKeys(folder, required=True)
    assert not believes(keys, key)
    (problem,) = look_into(folder).problems
    assert "chmod 0755" in problem
    folder.chmod(0o755)
    keys.refresh()
    assert believes(keys, key)


def test_a_folder_that_keygen_makes_is_taken_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        write_key_pair(tmp_path / "new", "fleet")
    finally:
        os.umask(before)
    assert look_into(tmp_path / "new").problems == ()


def test_a_folder_without_a_key_or_none_at_all_trusts_nobody_and_says_so(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place in (folder, tmp_path / "nowhere"):
        caplog.clear()
        assert not believes(TrustedKeys(place, required=True), SigningKey.generate())
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert str(place) in warning.getMessage()


def test_a_car_that_asks_for_no_signatures_needs_no_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    TrustedKeys(tmp_path / "nowhere", required=False)
    assert not caplog.records


async def test_keys_are_rotated_and_revoked_under_a_running_agent(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trusted_keys, "PERIOD_S", LOOK_S)
    config = write_config(tmp_path, iotcore.port, signed=True)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        refused = car.service.intake.refused

        async def until_trusted(key: SigningKey, kid: str) -> None:
            await car.until(lambda: believes(car.service.keys, key, kid), f"{kid} is trusted")

        def send(task_id: str, key: SigningKey, kid: str) -> None:
            message, tail = task(task_id)
            fleet.link.publish(TOPICS.task, jws.sign(framing.encode(message, [tail]), key, kid))

        fleet.settles = False
        first = new_key(tmp_path / "keys", "fleet-1")
        await until_trusted(first, "fleet-1")
        send("night-1", first, "fleet-1")
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer to the first key")
        second = new_key(tmp_path / "keys", "fleet-2")
        await until_trusted(second, "fleet-2")
        (tmp_path / "keys/fleet-1.revoked").touch()
        await car.until(lambda: not believes(car.service.keys, first, "fleet-1"), "fleet-1 is revoked")
        send("night-2", first, "fleet-1")
        await car.until(lambda: refused["unknown_key"] == 1, "the revoked key is refused")
        send("night-3", second, "fleet-2")
        await fleet.until(lambda: fleet.is_final("night-3"), "the answer to the second key")
        assert not fleet.rows("night-2")


# The time


class Clock:
    """A car's wall clock; it may show anything."""

    def __init__(self, shows: dt.datetime | float) -> None:
        self.shows_s = shows if isinstance(shows, float) else shows.timestamp()

    def __call__(self) -> float:
        return self.shows_s


def ago(seconds: float) -> dt.datetime:
    return now() - dt.timedelta(seconds=seconds)


def issued(task_id: str, at: dt.datetime) -> tuple[Task, bytes]:
    return task(task_id, issued_at=at, expires_at=at + dt.timedelta(minutes=5))


async def rejected(fleet: WireFleet, task_id: str) -> Event:
    event = await fleet.heard_event(task_id, TaskState.REJECTED)
    assert event.reason is not None
    return event


def code_of(event: Event) -> Reason:
    assert event.reason is not None
    return event.reason.code


async def answered(fleet: WireFleet, offer: tuple[Task, bytes]) -> None:
    fleet.send(offer)
    await fleet.until(lambda: fleet.is_final(offer[0].id), "the answer")


async def test_a_task_that_was_signed_too_long_ago_is_refused_however_late_it_may_be_done(
    tmp_path: Path, iotcore: Broker
) -> None:
    key = new_key_folder(tmp_path)
    config = write_config(tmp_path, iotcore.port, signed=True)
    async with agent(config), wire_fleet(iotcore.port, TOPICS, key=key) as fleet:
        next_week = now() + dt.timedelta(days=7)
        fleet.send(task("old", issued_at=ago(DAY_S + 60), expires_at=next_week))
        event = await rejected(fleet, "old")
        assert code_of(event) is Reason.EXPIRED
        await answered(fleet, task("young", issued_at=ago(DAY_S - 60), expires_at=next_week))


async def test_a_message_from_the_future_is_refused_and_moves_no_time(
    tmp_path: Path, iotcore: Broker
) -> None:
    """On the car's side: if it is the car's clock that is slow, the fleet offers the task again later."""
    key = new_key_folder(tmp_path)
    config = write_config(tmp_path, iotcore.port, signed=True)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS, key=key) as fleet:
        tomorrow = now() + dt.timedelta(days=1)
        fleet.send(issued("night-1", tomorrow))
        event = await rejected(fleet, "night-1")
        assert code_of(event) is Reason.UNKNOWN_SIGNAL
        fleet.control(Drain("veh-1", tomorrow))
        refused = car.service.intake.refused
        await car.until(lambda: refused["unknown_signal"] == 2, "the drain is refused")
        await answered(fleet, task("night-2"))
        await answered(fleet, issued("night-3", now() + dt.timedelta(seconds=AHEAD_S - 60)))


async def test_orders_of_any_age_are_taken_because_the_newest_holds(tmp_path: Path, iotcore: Broker) -> None:
    key = new_key_folder(tmp_path)
    config = write_config(tmp_path, iotcore.port, signed=True)
    async with agent(config), wire_fleet(iotcore.port, TOPICS, key=key) as fleet:
        fleet.control(Drain("veh-1", ago(30 * DAY_S)))
        await fleet.until(lambda: mode(fleet) is Mode.DRAINING, "the car drains")
        fleet.control(Resume("veh-1", ago(29 * DAY_S)))
        fleet.control(Drain("veh-1", ago(30 * DAY_S)))
        await fleet.until(lambda: mode(fleet) is Mode.READY, "the car is ready")


def mode(fleet: WireFleet) -> Mode | None:
    state = fleet.last_state()
    return state.mode if state else None


@pytest.mark.parametrize("clock_s", [0.0, None], ids=["at 1970", "a month behind"])
async def test_time_never_goes_back_behind_what_a_trusted_message_said(
    tmp_path: Path, iotcore: Broker, clock_s: float | None
) -> None:
    """A car wakes with a wrong clock: a deadline before the newest signed time has passed."""
    key = new_key_folder(tmp_path)
    config = write_config(tmp_path, iotcore.port, signed=True)
    later = now() + dt.timedelta(days=30)
    wrong = Clock(now() if clock_s is None else clock_s)
    async with wire_fleet(iotcore.port, TOPICS, key=key) as fleet:
        async with agent(config, wall=Clock(later)):
            await answered(fleet, issued("later", later))
        async with agent(config, wall=wrong) as car:
            assert car.service.time.wall_s() is None
            fleet.send(task("night-1"))
            assert code_of(await rejected(fleet, "night-1")) is Reason.EXPIRED
            await answered(fleet, issued("night-2", later + dt.timedelta(seconds=60)))


async def test_a_car_without_a_clock_works_and_what_it_hears_then_binds_nobody_later(
    tmp_path: Path, iotcore: Broker
) -> None:
    key = new_key_folder(tmp_path)
    config = write_config(tmp_path, iotcore.port, signed=True)
    clock = Clock(0.0)
    async with agent(config, wall=clock), wire_fleet(iotcore.port, TOPICS, key=key) as fleet:
        await answered(fleet, task("night-1"))
        far = now() + dt.timedelta(days=365 * 50)
        await answered(fleet, issued("far", far))
        fleet.send(task("night-2"))
        assert code_of(await rejected(fleet, "night-2")) is Reason.EXPIRED
        clock.shows_s = now().timestamp()  # the time has come from the air
        await answered(fleet, task("night-3"))


async def test_a_replay_of_what_the_car_has_forgotten_is_refused_whatever_its_clock_says(
    tmp_path: Path, iotcore: Broker
) -> None:
    key = new_key_folder(tmp_path)
    config = write_config(tmp_path, iotcore.port, signed=True)
    recorded, later = issued("night-1", now()), now() + dt.timedelta(days=3)
    clock = Clock(now())
    async with wire_fleet(iotcore.port, TOPICS, key=key) as fleet:
        async with agent(config, wall=clock) as car:
            await answered(fleet, recorded)
            await car.until_settled()
            await car.until_told()
            store = car.service.store
            assert await forget_old_tasks(store, signed=True) == 0
            clock.shows_s = later.timestamp()
            await answered(fleet, issued("night-2", later))
            assert await forget_old_tasks(store, signed=True) == 1
        async with agent(config, wall=Clock(0.0)):
            fleet.send(recorded)
            assert code_of(await rejected(fleet, "night-1")) is Reason.EXPIRED
            assert len(fleet.rows("night-1")) == 1


def new_key_folder(folder: Path) -> SigningKey:
    (folder / "keys").mkdir()
    return new_key(folder / "keys")


NOW_S = now().timestamp()
MOMENTS = st.floats(NOW_S - 400 * DAY_S, NOW_S + 400 * DAY_S)


@given(st.lists(st.tuples(MOMENTS, MOMENTS), max_size=50))
def test_no_sequence_of_messages_moves_the_floor_away_from_every_clock_that_bore_it_out(
    history: list[tuple[float, float]],
) -> None:
    clock = Clock(NOW_S)
    time = SignedTime(clock, max_age_s=DAY_S)
    newest_wall_s = floor_s = 0.0
    for clock.shows_s, issued_s in history:
        newest_wall_s = max(newest_wall_s, clock.shows_s)
        kept = time.hear(dt.datetime.fromtimestamp(issued_s, dt.UTC))
        assert kept is None or kept == time.floor_s
        assert floor_s <= time.floor_s <= newest_wall_s + LATE_S + AHEAD_S
        floor_s = time.floor_s


@given(st.lists(st.tuples(MOMENTS, MOMENTS), max_size=50), MOMENTS, st.floats(0, NOW_S + 400 * DAY_S))
def test_what_was_refused_as_old_at_a_right_clock_stays_refused_after_a_restart(
    history: list[tuple[float, float]], issued_s: float, wrong_s: float
) -> None:
    """From the floor on disk alone, with any clock."""
    clock, floor_s = Clock(NOW_S), 0.0
    time = SignedTime(clock, max_age_s=DAY_S)
    for clock.shows_s, heard_s in history:
        floor_s = max(floor_s, time.hear(dt.datetime.fromtimestamp(heard_s, dt.UTC)) or 0.0)
    restarted = SignedTime(Clock(wrong_s), max_age_s=DAY_S, floor_s=floor_s)
    if issued_s < floor_s - DAY_S - 1:
        with pytest.raises(Refused):
            restarted.refuse_old(dt.datetime.fromtimestamp(issued_s, dt.UTC))


def test_a_car_without_a_clock_survives_the_end_of_the_calendar() -> None:
    time = SignedTime(lambda: 0.0, max_age_s=60)
    time.hear(dt.datetime.max.replace(tzinfo=dt.UTC))
    assert time.now().year == 2100
