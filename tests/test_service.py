"""The service over real brokers, with a car that is driven by the test and a fleet at the level of the wire."""

import asyncio
import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import pytest
from agents import TOPICS, agent, write_config
from nacl.signing import SigningKey
from wire_fleet import WireFleet, now, task, wire_fleet

from agent import outbox
from agent.control import ask
from agent.protocol import framing
from agent.protocol.keys import load_private_key, write_key_pair
from agent.protocol.messages import (
    Cancel,
    Datatype,
    Drain,
    EnergySource,
    Limits,
    Mode,
    ModelFormat,
    ModelRef,
    Offline,
    OutputParameters,
    RequestedOutput,
    Resume,
    TaskState,
    Tensor,
    TensorParameters,
)
from agent.protocol.reasons import Reason
from fleet.broker import Broker, IotcoreBroker

SLOW_US = 60_000


def assert_each_row_once(fleet: WireFleet, task_id: str, rows: int) -> None:
    answered = sorted(row for begin, end in fleet.rows(task_id) for row in range(begin, end))
    assert answered == list(range(rows))


async def test_a_task_is_accepted_answered_and_forgotten_once_settled(tmp_path: Path, broker: Broker) -> None:
    async with agent(write_config(tmp_path, broker.port)) as car, wire_fleet(broker.port, TOPICS) as fleet:
        begun_s = asyncio.get_running_loop().time()
        fleet.send(task("night-1"))
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        await fleet.heard_event("night-1", TaskState.ACCEPTED)
        took_s = asyncio.get_running_loop().time() - begun_s
        states = fleet.states_of("night-1")
        # `running` is said of what lasts longer than a second, as anything does on a machine that stands
        assert states == [TaskState.ACCEPTED] or (took_s > 1 and states[1:] == [TaskState.RUNNING])
        ((result, tail),) = fleet.results
        assert result.rows == (0, 8)
        assert tail == b"".join(bytes([row]) * 16 for row in range(8))
        assert result.usage.energy_source is EnergySource.NONE
        assert result.usage.energy_j is None
        await car.until_settled()


async def test_an_opened_door_stops_inference_and_every_row_is_answered_once(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1", count=12))
        await car.until_rows(3)
        car.car.open_door()
        assert not car.service.guard.verdict.allowed
        await car.until_preempted()
        at_stop = car.rows_done
        preempted = await fleet.heard_event("night-1", TaskState.PREEMPTED)
        assert preempted.reason is not None
        assert preempted.reason.code is Reason.OWNER_PRESENT
        assert preempted.rows_done == at_stop
        line = car.service.preemptions.done[-1]
        assert line.said_ns is not None
        assert line.seen_ns <= line.shut_ns <= line.killed_ns <= line.reaped_ns <= line.said_ns
        assert all(station.pid is None for station in car.service.stations)
        car.car.close_door()
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        assert_each_row_once(fleet, "night-1", 12)
        assert (0, at_stop) in fleet.rows("night-1")


async def test_results_are_repeated_until_the_fleet_has_settled_them(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    async with wire_fleet(iotcore.port, TOPICS, settles=False) as fleet:
        async with agent(config):
            fleet.send(task("night-1"))
            await fleet.until(lambda: len(fleet.results) == 1, "the answer")
        async with agent(config) as car:
            await fleet.until(lambda: len(fleet.results) == 2, "the answer again")
            fleet.settle(fleet.results[0][0])
            await car.until_settled()
        async with agent(config) as car:
            fleet.send(task("night-2"))
            await fleet.until(lambda: fleet.is_final("night-2"), "the other answer")
        assert len(fleet.rows("night-1")) == 2


async def test_a_task_that_the_fleet_repeats_is_answered_with_its_results_again(
    tmp_path: Path, iotcore: Broker
) -> None:
    """After a broker has died the car may be back before its fleet, and what it says is heard by nobody."""
    config = write_config(tmp_path, iotcore.port)
    async with agent(config), wire_fleet(iotcore.port, TOPICS, settles=False) as fleet:
        offer = task("night-1")
        fleet.send(offer)
        await fleet.until(lambda: len(fleet.results) == 1, "the answer")
        fleet.send(offer)
        await fleet.heard_event("night-1", TaskState.DONE)
        await fleet.until(lambda: len(fleet.results) > 1, "the answer again")
        assert [result.rows for result, _ in fleet.results] == [(0, 8), (0, 8)]


async def test_what_stays_unsettled_is_repeated_though_the_link_was_never_down(
    tmp_path: Path, iotcore: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet that is killed between its PUBACK and `settled` has nothing in its hands when it is back."""
    monkeypatch.setattr(outbox, "PERIOD_S", 0.2)
    config = write_config(tmp_path, iotcore.port)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS, settles=False) as fleet:
        fleet.send(task("night-1"))
        await fleet.until(lambda: len(fleet.results) >= 3, "the answer again and again")
        assert len({body for _, body in fleet.results}) == 1
        assert car.service.link.status.connects == 1
        fleet.settle(fleet.results[0][0])
        await car.until_settled()


async def test_a_clean_stop_gives_open_work_back_and_says_offline(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with wire_fleet(iotcore.port, TOPICS) as fleet:
        async with agent(config) as car:
            fleet.send(task("night-1", count=50))
            await car.until_rows(2)
        released = await fleet.heard_event("night-1", TaskState.RELEASED)
        assert released.reason is not None
        assert released.reason.code is Reason.RESTARTED
        await fleet.until(lambda: fleet.states and isinstance(fleet.states[-1], Offline), "good-bye")
        await fleet.until(lambda: fleet.rows_done("night-1") >= released.rows_done, "the rows that were done")
        assert fleet.rows_done("night-1") == released.rows_done


async def test_a_repeat_runs_once_and_is_answered_with_the_present_state(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with agent(write_config(tmp_path, iotcore.port)), wire_fleet(iotcore.port, TOPICS) as fleet:
        offer = task("night-1")
        fleet.send(offer)
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        fleet.send(offer)
        await fleet.heard_event("night-1", TaskState.DONE)
        assert len(fleet.results) == 1


async def test_a_newer_attempt_supersedes_and_an_older_one_is_refused(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1", count=20))
        await car.until_rows(1)
        fleet.send(task("night-1", count=3, attempt=2))
        await fleet.heard_event("night-1", TaskState.SUPERSEDED)
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer of attempt 2")
        fleet.send(task("night-1", count=20))
        rejected = await fleet.heard_event("night-1", TaskState.REJECTED)
        assert rejected.reason is not None
        assert rejected.reason.code is Reason.STALE_ATTEMPT


async def test_a_cancelled_task_keeps_the_rows_it_has(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1", count=50))
        await car.until_rows(2)
        fleet.control(Cancel("veh-1", now(), "night-1", 1))
        cancelled = await fleet.heard_event("night-1", TaskState.CANCELLED)
        assert 2 <= cancelled.rows_done < 50
        await fleet.until(
            lambda: fleet.rows_done("night-1") >= cancelled.rows_done, "the rows that were done"
        )
        assert fleet.rows_done("night-1") == cancelled.rows_done
        assert not car.service.executor.jobs
        await car.until_told()


async def test_a_drain_releases_everything_survives_a_restart_and_ends(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with wire_fleet(iotcore.port, TOPICS) as fleet:
        async with agent(config) as car:
            fleet.send(task("night-1", count=50))
            await car.until_rows(1)
            drained_at = now()
            fleet.control(Drain("veh-1", drained_at))
            released = await fleet.heard_event("night-1", TaskState.RELEASED)
            assert released.reason is not None
            assert released.reason.code is Reason.DRAINING
            await car.until(lambda: all(s.pid is None for s in car.service.stations), "the worker is gone")
        async with agent(config):
            fleet.send(task("night-2"))
            refused = await fleet.heard_event("night-2", TaskState.REJECTED)
            assert refused.reason is not None
            assert refused.reason.code is Reason.DRAINING
            await fleet.until(lambda: mode(fleet) is Mode.DRAINING, "mode draining")
            fleet.control(
                Resume("veh-1", drained_at - dt.timedelta(seconds=1))
            )  # older than the drain: no effect
            fleet.control(Resume("veh-1", drained_at + dt.timedelta(seconds=1)))
            await fleet.until(lambda: mode(fleet) is Mode.READY, "mode ready")
            fleet.send(task("night-3", count=1))
            await fleet.until(lambda: fleet.is_final("night-3"), "the answer")


def mode(fleet: WireFleet) -> Mode | None:
    state = fleet.last_state()
    return state.mode if state else None


async def test_a_lease_that_is_not_renewed_ends_the_task(tmp_path: Path, iotcore: Broker) -> None:
    async with agent(write_config(tmp_path, iotcore.port)) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        car.car.open_door()
        fleet.send(task("night-1", lease_s=0.5))
        expired = await fleet.heard_event("night-1", TaskState.EXPIRED)
        assert expired.rows_done == 0
        assert not car.service.executor.jobs


async def test_a_long_task_renews_its_lease_while_it_runs(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1", count=120, lease_s=6))
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        assert TaskState.RUNNING in fleet.states_of("night-1")
        assert TaskState.EXPIRED not in fleet.states_of("night-1")
        assert_each_row_once(fleet, "night-1", 120)


def tensor(**changes: Any) -> list[Tensor]:
    fields: dict[str, Any] = {
        "name": "x",
        "datatype": Datatype.UINT8,
        "shape": [8, 16],
        "parameters": TensorParameters(binary_data_size=128),
    }
    return [Tensor(**(fields | changes))]


UNKNOWN_SHA256 = hashlib.sha256(b"no such model").hexdigest()
REFUSED: dict[str, tuple[dict[str, Any], TaskState, Reason]] = {
    "for another car": ({"audience": "veh-2"}, TaskState.REJECTED, Reason.WRONG_AUDIENCE),
    "expired": ({"expires_at": now() - dt.timedelta(seconds=1)}, TaskState.REJECTED, Reason.EXPIRED),
    "data that has to stay elsewhere": ({"residency": ["DE"]}, TaskState.REJECTED, Reason.RESIDENCY),
    "energy limit without a meter": (
        {"limits": Limits(energy_j=5.0)},
        TaskState.REJECTED,
        Reason.LIMIT_ENERGY,
    ),
    "size that does not match the shape": (
        {"inputs": tensor(shape=[8, 17])},
        TaskState.REJECTED,
        Reason.BAD_TENSOR,
    ),
    "rows outside": ({"rows": (4, 9)}, TaskState.REJECTED, Reason.BAD_TENSOR),
    "unknown backend": ({"backend": "fpga"}, TaskState.REJECTED, Reason.BACKEND_UNUSABLE),
    "model that is not there": (
        {"model": ModelRef("m", "1", UNKNOWN_SHA256, ModelFormat.ONNX)},
        TaskState.FAILED,
        Reason.MODEL_NOT_FOUND,
    ),
}


@pytest.mark.parametrize("why", sorted(REFUSED))
async def test_a_bad_task_gets_its_code_and_others_are_not_touched(
    tmp_path: Path, iotcore: Broker, why: str
) -> None:
    changes, state, reason = REFUSED[why]
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("good", count=4))
        fleet.send(task("bad", **changes))
        event = await fleet.heard_event("bad", state)
        assert event.reason is not None
        assert event.reason.code is reason
        assert event.reason.text
        await fleet.until(lambda: fleet.is_final("good"), "the good task's answer")
        assert_each_row_once(fleet, "good", 4)


async def test_a_corrupt_model_never_reaches_a_worker(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    (tmp_path / "models" / UNKNOWN_SHA256).write_bytes(b"other bytes than the name says")
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1", model=ModelRef("m", "1", UNKNOWN_SHA256, ModelFormat.ONNX)))
        failed = await fleet.heard_event("night-1", TaskState.FAILED)
        assert failed.reason is not None
        assert failed.reason.code is Reason.MODEL_HASH


GARBAGE: dict[str, bytes] = {
    "empty": b"",
    "noise": bytes(range(256)),
    "no object": b"[1, 2]",
    "deep": b"[" * 100_000,
    "BOM": b"\xef\xbb\xbf{}",
    "NaN": b'{"id": "x", "lease_s": NaN}',
}


@pytest.mark.parametrize("what", sorted(GARBAGE))
async def test_garbage_is_acknowledged_counted_and_forgotten(
    tmp_path: Path, iotcore: Broker, what: str
) -> None:
    async with agent(write_config(tmp_path, iotcore.port)) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.publish(TOPICS.task, GARBAGE[what])
        fleet.publish(TOPICS.control, GARBAGE[what])
        fleet.send(task("good"))
        await fleet.until(lambda: fleet.is_final("good"), "the good task's answer")
        await car.until(lambda: car.service.intake.refused.total() == 2, "both are refused")


async def test_with_signatures_only_the_trusted_key_gets_in(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, signed=True)
    _, private = write_key_pair(tmp_path / "keys", "fleet")
    trusted, stranger = load_private_key(private), SigningKey.generate()
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS, key=trusted) as fleet:
        fleet.key = stranger
        fleet.send(task("stranger"))
        fleet.key = None
        fleet.send(task("unsigned"))
        fleet.key = trusted
        fleet.send(task("good"))
        await fleet.until(lambda: fleet.is_final("good"), "the good task's answer")
        assert {event.id for event in fleet.events} == {"good"}
        assert dict(car.service.intake.refused) == {"bad_signature": 2}
        await car.until_settled()  # the signed `settled` was taken too


async def test_the_queue_is_bounded_and_says_so(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, extra="\n[tasks]\nqueue_tasks = 3\n")
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        car.car.open_door()
        for number in range(5):
            fleet.send(task(f"night-{number}"))
        await fleet.heard_event("night-4", TaskState.REJECTED)
        states = {event.id: event.state for event in fleet.events}
        assert sorted(states.values(), key=str) == [TaskState.ACCEPTED] * 3 + [TaskState.REJECTED] * 2


async def test_a_first_task_in_plain_json_gets_a_plain_json_answer(tmp_path: Path, iotcore: Broker) -> None:
    async with agent(write_config(tmp_path, iotcore.port)), wire_fleet(iotcore.port, TOPICS) as fleet:
        offer, _ = task("first", inputs=[Tensor("x", Datatype.INT32, [2, 2], data=[[1, 2], [3, 4]])])
        offer.outputs = [RequestedOutput("x", OutputParameters(binary_data=False))]
        fleet.publish(TOPICS.task, framing.encode(offer))
        await fleet.until(lambda: fleet.is_final("first"), "the answer")
        ((result, tail),) = fleet.results
        assert result.outputs[0].data == [[1, 2], [3, 4]]
        assert tail == b""


async def test_status_on_the_control_socket_says_why_not(tmp_path: Path, iotcore: Broker) -> None:
    async with agent(write_config(tmp_path, iotcore.port)) as car:
        await car.until_ready()
        car.car.open_door()
        answer = await asyncio.to_thread(ask, tmp_path / "agent.sock", {"cmd": "status"})
        assert answer["ok"]
        assert answer["status"]["mode"] == "blocked"
        assert [blocker["code"] for blocker in answer["status"]["blockers"]] == [1001]


async def test_the_agent_starts_without_a_broker_and_finds_it_later(tmp_path: Path) -> None:
    with IotcoreBroker() as broker:
        port = broker.port
    async with agent(write_config(tmp_path, port), wait_for_link=False) as car:
        await car.until_ready()
        with IotcoreBroker(port):
            async with wire_fleet(port, TOPICS) as fleet:
                await fleet.until(fleet.last_state, "a state")
