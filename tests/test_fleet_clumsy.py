"""What a clumsy fleet does to a real car: each mistake has one answer, with its reason, and costs nothing beside it."""

import asyncio
import datetime as dt
import hashlib
import math
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from agents import TOPICS, RunningAgent, agent, write_config
from wire_fleet import WireFleet, now, task, wire_fleet

from agent.admission import UNMEASURED_S
from agent.protocol import tensors
from agent.protocol.messages import (
    Cancel,
    Datatype,
    Drain,
    ModelFormat,
    ModelRef,
    OutputParameters,
    ReasonInfo,
    RequestedOutput,
    Resume,
    Settled,
    Task,
    TaskState,
    Tensor,
    TensorParameters,
)
from agent.protocol.reasons import Reason
from backends import tiny_onnx
from fleet.broker import Broker

SLOW_US = 20_000
ROWS = 500
TWO_TASKS = "\n[tasks]\nqueue_tasks = 2\nqueue_s = 3600\n"
CPU = '\n[[backends]]\nuse = "cpu"\nmax_power_w = 60\n'
ENDED_BADLY = (TaskState.REJECTED, TaskState.FAILED)


@asynccontextmanager
async def car_and_fleet(
    folder: Path, port: int, *, run_us: int = 0, extra: str = ""
) -> AsyncIterator[tuple[RunningAgent, WireFleet]]:
    config = write_config(folder, port, run_us=run_us, extra=extra)
    async with agent(config) as car, wire_fleet(port, TOPICS) as fleet:
        yield car, fleet


async def reason_of(fleet: WireFleet, task_id: str, state: TaskState) -> ReasonInfo:
    event = await fleet.heard_event(task_id, state)
    assert event.reason is not None
    assert event.reason.text
    return event.reason


# When to come again


async def test_a_full_queue_says_when_to_ask_again(tmp_path: Path, iotcore: Broker) -> None:
    async with car_and_fleet(tmp_path, iotcore.port, extra=TWO_TASKS) as (car, fleet):
        car.car.open_door()
        before = now()
        for number in range(3):
            fleet.send(task(f"night-{number}"))
        reason = await reason_of(fleet, "night-2", TaskState.REJECTED)
        assert reason.code is Reason.QUEUE_FULL
        assert reason.resume_at is not None
        assert reason.resume_at - before >= dt.timedelta(seconds=UNMEASURED_S)


async def test_where_rows_were_measured_it_is_when_the_next_task_can_be_done(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with car_and_fleet(tmp_path, iotcore.port, run_us=SLOW_US, extra=TWO_TASKS) as (car, fleet):
        fleet.send(task("known"))
        await fleet.until(lambda: fleet.is_final("known"), "its answer")
        car.car.open_door()
        for name in ("night-0", "night-1"):
            fleet.send(task(name, ROWS))
            await fleet.heard_event(name, TaskState.ACCEPTED)
        before = now()
        fleet.send(task("night-2", ROWS))
        reason = await reason_of(fleet, "night-2", TaskState.REJECTED)
        assert reason.resume_at is not None
        assert reason.resume_at - before > dt.timedelta(seconds=2 * UNMEASURED_S), (
            "rows take milliseconds each"
        )


async def test_a_burst_fills_the_queue_no_further_than_single_tasks_do(
    tmp_path: Path, iotcore: Broker
) -> None:
    extra = "\n[tasks]\nqueue_s = 1\n"
    async with car_and_fleet(tmp_path, iotcore.port, run_us=SLOW_US, extra=extra) as (car, fleet):
        fleet.send(task("known"))
        await fleet.until(lambda: fleet.is_final("known"), "its answer")
        car.car.open_door()
        names = [f"night-{number}" for number in range(10)]
        for name in names:
            fleet.send(task(name, ROWS))
        await fleet.until(lambda: all(map(fleet.states_of, names)), "each is answered")
        taken = [name for name in names if fleet.states_of(name) == [TaskState.ACCEPTED]]
        row_s = car.service.executor.queued_s / (len(taken) * ROWS)
        assert (len(taken) - 1) * ROWS * row_s <= 1.0
        refused = await reason_of(fleet, names[-1], TaskState.REJECTED)
        assert "queue_s is 1" in refused.text


# Orders


async def test_of_drains_and_resumes_in_any_order_and_twice_the_newest_holds(
    tmp_path: Path, iotcore: Broker
) -> None:
    began = now()

    def at(seconds: float) -> dt.datetime:
        return began + dt.timedelta(seconds=seconds)

    async with car_and_fleet(tmp_path, iotcore.port) as (car, fleet):
        orders: list[Drain | Resume] = [
            Resume("veh-1", at(2)),
            Drain("veh-1", at(1)),
            Drain("veh-1", at(3)),
            Resume("veh-1", at(2)),
        ]
        for order in orders + orders:
            fleet.control(order)
        await car.until(lambda: car.service.intake.draining, "the newest order")
        fleet.send(task("drained"))
        assert (await reason_of(fleet, "drained", TaskState.REJECTED)).code is Reason.DRAINING
        fleet.control(Resume("veh-1", at(4)))
        await car.until(lambda: not car.service.intake.draining, "the end of the drain")
        fleet.send(task("later"))
        await fleet.until(lambda: fleet.is_final("later"), "its answer")


async def test_a_cancel_holds_also_before_its_task_and_twice_and_harms_no_other(
    tmp_path: Path, iotcore: Broker
) -> None:
    async with car_and_fleet(tmp_path, iotcore.port, run_us=SLOW_US) as (_, fleet):
        for task_id, attempt in (("early", 1), ("early", 1), ("never-sent", 1), ("good", 7)):
            await fleet.control(Cancel("veh-1", now(), task_id, attempt))
        fleet.control(Cancel("veh-2", now(), "good", 1))
        fleet.control(Settled("veh-1", now(), [("never-sent", 1, 0, 8), ("good", 7, 0, 8)]))
        await asyncio.gather(fleet.send(task("early")), fleet.send(task("good")))
        assert (await reason_of(fleet, "early", TaskState.CANCELLED)).code is Reason.CANCELLED
        await fleet.until(lambda: fleet.is_final("good"), "the good task's answer")
        assert sorted(row for begin, end in fleet.rows("good") for row in range(begin, end)) == list(range(8))


# Tensors that do not fit


@dataclass(frozen=True)
class Offered:
    """Two rows for a model. `item`: the bytes of each item, where they are not zeros."""

    model: bytes
    datatype: Datatype
    row: tuple[int, ...] = (4,)
    outputs: tuple[RequestedOutput, ...] = ()
    item: bytes = b""


@dataclass(frozen=True)
class Mistake:
    """What does not fit, and what is said of it; `says` is in the text."""

    offered: Offered
    ends: TaskState
    reason: Reason
    says: str


def same(datatype: str) -> bytes:
    """A model that gives back what it gets."""
    return tiny_onnx.one_node("Identity", {"x": (datatype, ("n", 4))}, (datatype, ("n", 4)))


def widened(items: int) -> bytes:
    """A model that makes so many floats of one."""
    shape = tiny_onnx.constant("shape", "INT64", (2,), struct.pack("<2q", 1, items))
    return tiny_onnx.one_node("Expand", {"x": ("FP32", ("n", 1))}, ("FP32", ("n", items)), shape, ("shape",))


FLOATS = tiny_onnx.one_node("Softmax", {"x": ("FP32", ("n", 4))}, ("FP32", ("n", 4)))
AS_JSON = (RequestedOutput("y", OutputParameters(binary_data=False)),)
NAN = struct.pack("<f", float("nan"))
F16, F32 = Datatype.FP16, Datatype.FP32
REJECTED, FAILED = ENDED_BADLY
UNSUPPORTED, BAD, LARGE = Reason.MODEL_UNSUPPORTED, Reason.BAD_TENSOR, Reason.TOO_LARGE
MISTAKES = {
    "half-floats-for-floats": Mistake(Offered(FLOATS, F16), FAILED, UNSUPPORTED, "FP32"),
    "integers-for-floats": Mistake(Offered(FLOATS, Datatype.INT64), FAILED, UNSUPPORTED, "FP32"),
    "a-row-too-wide": Mistake(Offered(FLOATS, F32, (5,)), FAILED, UNSUPPORTED, "[n, 4]"),
    "a-dimension-too-many": Mistake(Offered(FLOATS, F32, (2, 2)), FAILED, UNSUPPORTED, "[n, 4]"),
    "an-output-that-is-not-there": Mistake(
        Offered(FLOATS, F32, outputs=(RequestedOutput("z"),)), FAILED, UNSUPPORTED, "'z'"
    ),
    "a-model-of-texts": Mistake(Offered(same("STRING"), Datatype.UINT8), FAILED, UNSUPPORTED, "string"),
    "a-seven-for-a-boolean": Mistake(
        Offered(same("BOOL"), Datatype.BOOL, item=b"\x07"), REJECTED, BAD, "BOOL"
    ),
    "half-floats-as-json": Mistake(
        Offered(same("FP16"), F16, outputs=AS_JSON), FAILED, BAD, "binary_data true"
    ),
    "no-number-as-json": Mistake(
        Offered(FLOATS, F32, outputs=AS_JSON, item=NAN), FAILED, BAD, "binary_data true"
    ),
    "no-rows": Mistake(Offered(FLOATS, F32, (0,)), REJECTED, Reason.MALFORMED, "shape"),
    "a-row-larger-than-a-message": Mistake(
        Offered(widened(60_000), F32, (1,)), FAILED, LARGE, "fewer outputs"
    ),
    "a-row-larger-as-json": Mistake(
        Offered(widened(20_000), F32, (1,), AS_JSON), FAILED, LARGE, "binary outputs"
    ),
}
FITS = {
    "half-floats": Offered(same("FP16"), F16),
    "integers": Offered(same("INT64"), Datatype.INT64),
    "booleans": Offered(same("BOOL"), Datatype.BOOL),
    "no-number": Offered(FLOATS, F32, item=NAN),
}


def two_rows(folder: Path, name: str, offered: Offered) -> tuple[Task, bytes]:
    """The task, with its model where the car looks for it."""
    sha256 = hashlib.sha256(offered.model).hexdigest()
    (folder / "models" / sha256).write_bytes(offered.model)
    data = (offered.item or bytes(tensors.ITEM_BYTES[offered.datatype])) * (2 * math.prod(offered.row))
    shape = [2, *offered.row]
    made, _ = task(
        name,
        inputs=[Tensor("x", offered.datatype, shape, TensorParameters(binary_data_size=len(data)))],
        model=ModelRef(name, "1", sha256, ModelFormat.ONNX),
        backend="cpu",
        outputs=list(offered.outputs),
    )
    return made, data


async def test_tensors_that_do_not_fit_are_told_what_would(tmp_path: Path, iotcore: Broker) -> None:
    pytest.importorskip("onnxruntime")
    async with car_and_fleet(tmp_path, iotcore.port, extra=CPU) as (_, fleet):
        for name, mistake in MISTAKES.items():
            fleet.send(two_rows(tmp_path, name, mistake.offered))
            reason = await reason_of(fleet, name, mistake.ends)
            assert reason.code is mistake.reason, name
            assert mistake.says in reason.text, name
        for name, offered in FITS.items():
            fleet.send(two_rows(tmp_path, name, offered))
            await fleet.until(partial(fleet.is_final, name), f"the answer to {name}")
        assert [event.id for event in fleet.events if event.state in ENDED_BADLY] == list(MISTAKES)
