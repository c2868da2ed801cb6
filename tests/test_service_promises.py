"""Promises of the wire contract that need a particular moment: limits, repeats, the order after a reconnect."""

import datetime as dt
from pathlib import Path

from agents import TOPICS, agent, write_config
from wire_fleet import WireFleet, now, task, wire_fleet

from agent.protocol import framing
from agent.protocol.messages import (
    Cancel,
    Datatype,
    Drain,
    EnergySource,
    Limits,
    TaskState,
    Tensor,
    TensorParameters,
)
from agent.protocol.reasons import Reason
from firmware_shims import vss
from fleet.broker import Broker, IotcoreBroker, MosquittoBroker

SLOW_US = 60_000
METERED = '\n[meter]\nuse = "model"\n[meter.options]\nwatts_per_core = 7.0\n'


def code_of(fleet: WireFleet, task_id: str, state: TaskState) -> Reason | None:
    event = fleet.event(task_id, state)
    return event.reason.code if event and event.reason else None


async def test_low_charge_ends_work_at_a_batch_and_it_goes_on_when_there_is_charge(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1", count=12))
        await car.until_rows(2)
        car.car.set(vss.SOC, 24.0)
        await fleet.heard_event("night-1", TaskState.PREEMPTED)
        assert code_of(fleet, "night-1", TaskState.PREEMPTED) is Reason.CHARGE_LOW
        await car.until(lambda: car.service.stations[0].pid is None, "the worker is gone")
        assert not car.service.preemptions.done, "nobody was killed in a hurry"
        car.car.set(vss.SOC, 31.0)
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        answered = sorted(row for begin, end in fleet.rows("night-1") for row in range(begin, end))
        assert answered == list(range(12))


async def test_a_limit_on_run_time_ends_the_task_and_keeps_its_rows(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1", count=50, limits=Limits(runtime_s=0.15)))
        failed = await fleet.heard_event("night-1", TaskState.FAILED)
        assert code_of(fleet, "night-1", TaskState.FAILED) is Reason.LIMIT_RUNTIME
        assert 1 <= failed.rows_done < 50  # on a busy machine one may take as long as two
        await fleet.until(lambda: fleet.rows_done("night-1") == failed.rows_done, "the rows that were done")


async def test_a_limit_on_energy_needs_a_meter_and_ends_the_task(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US, extra=METERED)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1", count=50, limits=Limits(energy_j=1e-6)))
        await fleet.heard_event("night-1", TaskState.FAILED)
        assert code_of(fleet, "night-1", TaskState.FAILED) is Reason.LIMIT_ENERGY
        await fleet.until(lambda: fleet.results, "its rows")
        usage = fleet.results[0][0].usage
        assert usage.energy_source is EnergySource.MODEL
        assert usage.energy_j is not None
        assert usage.grid_j == usage.energy_j
        assert usage.pack_j == 0


async def test_a_task_whose_deadline_passes_while_it_waits_has_expired(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with agent(write_config(tmp_path, iotcore.port)) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        car.car.open_door()
        fleet.send(task("night-1", expires_at=now() + dt.timedelta(seconds=6)))
        expired = await fleet.heard_event("night-1", TaskState.EXPIRED)
        assert expired.reason is not None
        assert "expires_at" in expired.reason.text


async def test_a_result_larger_than_a_message_is_split_at_rows(tmp_path: Path, iotcore: Broker) -> None:
    """Rows of 16 bytes and room for a quarter of a KiB: many results, and only the last one is final."""
    config = write_config(tmp_path, iotcore.port)
    config.write_text(config.read_text().replace("[mqtt]", "[mqtt]\nmax_payload_bytes = 4352"))
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1", count=60))
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        assert len(fleet.results) > 2
        assert [result.final for result, _ in fleet.results] == [False] * (len(fleet.results) - 1) + [True]
        assert all(len(framing.encode(result, [tail])) <= 4352 for result, tail in fleet.results)
        assert b"".join(tail for _, tail in fleet.results) == task("night-1", count=60)[1]


async def test_a_batch_larger_than_a_message_is_split_also_when_its_rows_wait_for_others(
    tmp_path: Path, iotcore: Broker
) -> None:
    """30 rows of 8 KiB in a batch of the null backend, of which a message holds 15; they leave with the last row."""
    rows, row_bytes = 90, 8192
    inputs = [
        Tensor("x", Datatype.UINT8, [rows, 1], TensorParameters(binary_data_size=rows)),
        Tensor("y", Datatype.UINT8, [row_bytes], TensorParameters(binary_data_size=row_bytes, shared=True)),
    ]
    tail = bytes(range(rows)) + bytes(row_bytes)
    config = write_config(tmp_path, iotcore.port, run_us=10_000)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send((task("night-1", rows, inputs=inputs)[0], tail))
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        answered = [row for begin, end in fleet.rows("night-1") for row in range(begin, end)]
        assert answered == list(range(rows))


async def test_a_row_larger_than_a_message_fails_and_says_so(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port)
    config.write_text(config.read_text().replace("[mqtt]", "[mqtt]\nmax_payload_bytes = 4100"))
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1"))
        await fleet.heard_event("night-1", TaskState.FAILED)
        assert code_of(fleet, "night-1", TaskState.FAILED) is Reason.TOO_LARGE


async def test_a_retained_task_is_refused(tmp_path: Path, mosquitto: type[MosquittoBroker]) -> None:
    """The embedded broker does not tell: there it is an ordinary task, and a repeat from then on."""
    with mosquitto() as broker:
        async with (
            agent(write_config(tmp_path, broker.port)) as car,
            wire_fleet(broker.port, TOPICS) as fleet,
        ):
            message, tail = task("ghost")
            fleet.link.publish(TOPICS.task, framing.encode(message, [tail]), retain=True)
            fleet.send(task("good"))
            await fleet.until(lambda: fleet.is_final("good"), "the good task's answer")
            assert {event.id for event in fleet.events} == {"good"}
            assert dict(car.service.intake.refused) == {"malformed": 1}


async def test_a_repeat_is_known_even_when_a_new_task_would_be_refused(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with agent(write_config(tmp_path, iotcore.port)) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        offer = task("night-1")
        fleet.send(offer)
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")
        fleet.control(Drain("veh-1", now()))
        await car.until(lambda: car.service.intake.draining, "the drain")
        fleet.send(task("new"))
        await fleet.heard_event("new", TaskState.REJECTED)
        fleet.send(offer)
        done = await fleet.heard_event("night-1", TaskState.DONE)
        assert done.rows_done == 8


async def test_other_bytes_under_a_known_identity_are_refused(tmp_path: Path, iotcore: Broker) -> None:
    async with agent(write_config(tmp_path, iotcore.port)), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(task("night-1"))
        fleet.send(task("night-1", count=9))
        await fleet.heard_event("night-1", TaskState.REJECTED)
        assert code_of(fleet, "night-1", TaskState.REJECTED) is Reason.REPLAYED


async def test_after_a_reconnect_the_state_comes_first_and_an_ending_is_said_once(tmp_path: Path) -> None:
    with IotcoreBroker() as broker:
        config = write_config(tmp_path, broker.port, run_us=SLOW_US)
        async with agent(config) as car:
            async with wire_fleet(broker.port, TOPICS) as fleet:
                fleet.send(task("night-1", count=200, lease_s=5))
                await car.until_rows(2)
            broker.kill()
            await car.until(lambda: not car.service.executor.jobs, "the lease has run out")
            with IotcoreBroker(broker.port):
                async with wire_fleet(broker.port, TOPICS) as fleet:
                    await fleet.heard_event("night-1", TaskState.EXPIRED)
                    assert fleet.order[0] == TOPICS.state
                    await car.until_settled()
                    await car.until_told()
        with IotcoreBroker(broker.port):
            async with wire_fleet(broker.port, TOPICS) as fleet, agent(config):
                fleet.send(task("night-2", count=1))
                await fleet.until(lambda: fleet.is_final("night-2"), "the answer")
                assert {event.id for event in fleet.events} == {"night-2"}


async def test_a_cancel_right_behind_its_task_is_not_too_early(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, run_us=SLOW_US)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        for number in range(20):
            fleet.send(task(f"night-{number}", count=50))
            fleet.control(Cancel("veh-1", now(), f"night-{number}", 1))
        for number in range(20):
            await fleet.heard_event(f"night-{number}", TaskState.CANCELLED)


async def test_a_cancel_that_overtakes_its_task_holds(tmp_path: Path, iotcore: Broker) -> None:
    """A broker keeps the order within a topic, and these are two."""
    async with (
        agent(write_config(tmp_path, iotcore.port, run_us=SLOW_US)) as car,
        wire_fleet(iotcore.port, TOPICS) as fleet,
    ):
        fleet.control(Cancel("veh-1", now(), "night-1", 1))
        await car.until(lambda: car.service.intake._cancelled_early, "the cancel")
        fleet.send(task("night-1", count=50))
        await fleet.heard_event("night-1", TaskState.CANCELLED)
        fleet.send(task("night-1", 2, attempt=2))
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer to the second attempt")


async def test_cancelling_what_is_not_there_changes_nothing(tmp_path: Path, iotcore: Broker) -> None:
    async with agent(write_config(tmp_path, iotcore.port)), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.control(Cancel("veh-1", now(), "nobody", 1))
        fleet.control(Cancel("veh-2", now(), "night-1", 1))
        fleet.send(task("night-1"))
        await fleet.until(lambda: fleet.is_final("night-1"), "the answer")


async def test_a_store_full_of_waiting_tasks_refuses_more_and_goes_on(
    tmp_path: Path, iotcore: Broker
) -> None:
    config = write_config(tmp_path, iotcore.port)
    config.write_text(config.read_text().replace("[store]", "[store]\nmax_bytes = 1_000_000"))
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        car.car.open_door()
        names = [f"night-{number}" for number in range(20)]
        for name in names:
            fleet.send(task(name, count=4096))
        await fleet.until(
            lambda: {event.id for event in fleet.events} == set(names), "every task is answered"
        )
        refused = [event for event in fleet.events if event.state is TaskState.REJECTED]
        assert refused
        assert {event.reason.code for event in refused if event.reason} == {Reason.STORE_FULL}
        for name in names:
            fleet.control(Cancel("veh-1", now(), name, 1))
        await car.until(lambda: not car.service.executor.jobs, "they are cancelled")
        car.car.close_door()
        fleet.send(task("small"))
        await fleet.until(lambda: fleet.is_final("small"), "there is room again")


async def test_the_pack_budget_survives_a_restart(tmp_path: Path, iotcore: Broker) -> None:
    pack = "require_grid_proof = false\npack_budget_pct_per_day = 3\n"
    config = write_config(tmp_path, iotcore.port, policy=pack)
    async with agent(config) as car:
        car.car.set(vss.CHARGE_LINE_POWER, 0.0)
        car.car.set(vss.PACK_CURRENT, -1.0)
        car.car.set(vss.SOC, 70.0)
        await car.until_ready()
        assert car.service.guard.verdict.on_pack
        car.car.set(vss.SOC, 67.9)
        await car.until(lambda: not car.service.guard.verdict.allowed, "the budget is used up")
    async with agent(config) as car:
        car.car.set(vss.CHARGE_LINE_POWER, 0.0)
        car.car.set(vss.SOC, 67.9)
        await car.until(
            lambda: (
                [blocker.reason for blocker in car.service.guard.verdict.blockers] == [Reason.PACK_BUDGET]
            ),
            "the budget is still used up",
        )
