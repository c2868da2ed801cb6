"""`parkwatt run` as the vehicle OS starts it: a process, a broker, a CAN bus over socketcand, a fleet."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from agent_process import running_agent
from agents import TOPICS, write_config
from nacl.signing import SigningKey
from wire_fleet import NULL_SHA256, WITHIN_S, WireFleet, task, wire_fleet

from agent.link import LinkOptions
from agent.protocol.keys import load_private_key, write_key_pair
from agent.protocol.messages import Datatype, Mode, ModelFormat, ModelRef, State, TaskState
from agent.protocol.reasons import Reason
from firmware_shims import signal_map, vss
from firmware_shims.simulated_can import SimulatedCar
from fleet.broker import Broker
from fleet.client import FleetClient, Input

SLOW_US = 60_000
LONG_ROWS = 100
"""Of which most are still to be done when the first have come, also after a hiccup of this process."""
NULL = ModelRef("null", "1", NULL_SHA256, ModelFormat.ONNX)
ONLY_THE_CHIP = f'[initial]\n"{vss.CHIP_TEMPERATURE}" = 45\n'


@contextmanager
def can_car() -> Iterator[SimulatedCar]:
    with SimulatedCar.parked_and_charging(signal_map.load("tesla_model3")) as car:
        yield car


def write_can_config(folder: Path, broker: Broker, car: SimulatedCar, run_us: int) -> Path:
    """The car's signals come over CAN; the computer's own temperature is the one that CAN does not carry."""
    config = write_config(folder, broker.port, run_us=run_us, signed=True)
    (folder / "chip.toml").write_text(ONLY_THE_CHIP)
    options = "\n".join(f"{key} = {json.dumps(value)}" for key, value in car.options.items())
    sources = f"""[[signals]]
shim = "can"
map = "tesla_model3"
[signals.options]
{options}

[[signals]]
shim = "scenario"
[signals.options]
file = "{folder}/chip.toml"
"""
    config.write_text(config.read_text().replace('[[signals]]\nshim = "scenario"\n', sources))
    return config


def trusted_key(folder: Path) -> SigningKey:
    """The fleet's key, whose public half the agent in `folder` trusts."""
    _, private = write_key_pair(folder / "keys", "fleet")
    return load_private_key(private)


async def until_mode(fleet: WireFleet, mode: Mode) -> None:
    def seen() -> bool:
        state = fleet.last_state()
        return state is not None and state.mode is mode

    await fleet.until(seen, f"mode {mode.value}")


def rows_answered(fleet: WireFleet, task_id: str) -> set[int]:
    return {row for begin, end in fleet.rows(task_id) for row in range(begin, end)}


async def test_tasks_are_done_a_door_frame_stops_the_worker_and_sigterm_ends_it_all(
    tmp_path: Path, broker: Broker
) -> None:
    key = trusted_key(tmp_path)
    with can_car() as car:
        config = write_can_config(tmp_path, broker, car, SLOW_US)
        async with (
            wire_fleet(broker.port, TOPICS, key=key) as fleet,
            running_agent(config) as agent,
        ):
            await fleet.until(fleet.last_state, "a state")
            fleet.send(task("quick", count=2))
            await fleet.until(lambda: fleet.is_final("quick"), "the answer")
            fleet.send(task("long", count=LONG_ROWS))
            await fleet.until(lambda: fleet.rows("long"), "its first rows")
            assert agent.workers
            car.set(vss.DRIVER_DOOR, True)
            preempted = await fleet.heard_event("long", TaskState.PREEMPTED)
            assert preempted.reason is not None
            assert preempted.reason.code is Reason.OWNER_PRESENT
            await agent.until_no_worker()
            await until_mode(fleet, Mode.BLOCKED)
            car.set(vss.DRIVER_DOOR, False)
            await fleet.until(lambda: fleet.is_final("long"), "the rest of the rows")
            answered = sorted(row for begin, end in fleet.rows("long") for row in range(begin, end))
            assert answered == list(range(LONG_ROWS))
            assert await agent.stop() == 0


async def test_a_killed_agent_loses_nothing_and_repeats_no_finished_row(
    tmp_path: Path, broker: Broker
) -> None:
    key = trusted_key(tmp_path)
    tasks = [f"night-{number}" for number in range(6)]
    with can_car() as car:
        config = write_can_config(tmp_path, broker, car, SLOW_US)
        async with wire_fleet(broker.port, TOPICS, key=key) as fleet:
            async with running_agent(config) as agent:
                await fleet.until(fleet.last_state, "a state")
                for name in tasks:
                    fleet.send(task(name, count=8))
                await fleet.until(lambda: fleet.is_final("night-0"), "the first answer")
                (worker,) = agent.workers
                await agent.crash()
                await until_gone(worker)
            async with running_agent(config) as agent:
                await fleet.until(lambda: all(fleet.is_final(name) for name in tasks), "every answer")
                assert await agent.stop() == 0
    for name in tasks:
        assert rows_answered(fleet, name) == set(range(8))
        assert all(event.state is not TaskState.FAILED for event in fleet.events)
        ranges: dict[
            tuple[int, int], bytes
        ] = {}  # a result that is sent again is the same result: no row has two answers
        for result, tail in fleet.results:
            if result.id == name:
                assert ranges.setdefault(result.rows, tail) == tail
        assert sum(end - begin for begin, end in ranges) == 8


async def until_gone(pid: int) -> None:
    """The worker dies with its agent."""
    async with asyncio.timeout(WITHIN_S):
        while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
            await asyncio.sleep(0.002)


async def test_silence_of_the_bus_is_unknown_and_stops_work(tmp_path: Path, broker: Broker) -> None:
    key = trusted_key(tmp_path)
    with can_car() as car:
        config = write_can_config(tmp_path, broker, car, SLOW_US)
        async with (
            wire_fleet(broker.port, TOPICS, key=key) as fleet,
            running_agent(config) as agent,
        ):
            await fleet.until(fleet.last_state, "a state")
            fleet.send(task("long", count=LONG_ROWS))
            await fleet.until(lambda: fleet.rows("long"), "its first rows")
            car.silence()
            preempted = await fleet.heard_event("long", TaskState.PREEMPTED)
            assert preempted.reason is not None
            assert preempted.reason.code is Reason.UNKNOWN_SIGNAL
            await agent.until_no_worker()
            car.wake()
            await fleet.until(lambda: fleet.is_final("long"), "the rest of the rows")


async def test_a_fleet_backend_gets_every_row_through_a_crash_and_an_owner(
    tmp_path: Path, broker: Broker
) -> None:
    """The library that fleet backends use, against the real thing: it sees nothing of what went wrong."""
    key = trusted_key(tmp_path)
    options = LinkOptions(host="127.0.0.1", port=broker.port, client_id="backend-1")
    rows = [bytes([number]) * 16 for number in range(24)]
    inputs = [Input("x", Datatype.UINT8, [24, 16], b"".join(rows))]
    with can_car() as car:
        config = write_can_config(tmp_path, broker, car, SLOW_US)
        async with FleetClient(options, key=key, kid="fleet") as fleet:
            vehicle = fleet.vehicle("veh-1", "BR-SP")
            async with running_agent(config) as agent:
                await vehicle.wait_for(lambda state: isinstance(state, State), WITHIN_S)
                offers = [vehicle.offer(NULL, inputs) for _ in range(3)]
                await anext(aiter(offers[0]))
                await agent.crash()
            async with running_agent(config) as agent:
                await anext(aiter(offers[1]))
                car.set(vss.DRIVER_DOOR, True)
                await agent.until_no_worker()
                car.set(vss.DRIVER_DOOR, False)
                answers = [await asyncio.wait_for(offer.answer(), WITHIN_S) for offer in offers]
                assert await agent.stop() == 0
    for answer in answers:
        assert answer.rows == 24
        assert answer.outputs["x"].data == b"".join(rows)


@pytest.mark.parametrize(
    "module",
    ["numpy", "onnxruntime", "tflite_runtime", "joserfc", "rich", "cryptography", "prometheus_client"],
)
async def test_the_supervisor_never_imports(tmp_path: Path, module: str) -> None:
    program = (
        "import sys, agent.__main__, agent.cli, agent.service, agent.settings, agent.link, backends.process,"
        " backends.cpu, backends.null, firmware_shims.can, firmware_shims.scenario\n"
        f"sys.exit({module!r} in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=tmp_path)
    assert await process.wait() == 0


async def test_what_work_has_taken_of_the_cars_memory_goes_with_the_worker(
    tmp_path: Path, broker: Broker
) -> None:
    mib = 2**20
    key = trusted_key(tmp_path)
    options = LinkOptions(host="127.0.0.1", port=broker.port, client_id="backend-1")
    large = [Input("x", Datatype.UINT8, [1, 100_000], bytes(100_000))]
    with can_car() as car:
        config = write_can_config(tmp_path, broker, car, run_us=0)
        async with FleetClient(options, key=key, kid="fleet") as fleet, running_agent(config) as agent:
            vehicle = fleet.vehicle("veh-1", "BR-SP")
            await vehicle.wait_for(lambda state: isinstance(state, State), WITHIN_S)
            before = agent.resident_bytes
            await asyncio.gather(*[vehicle.submit(NULL, large) for _ in range(200)])
            at_work = agent.resident_bytes
            car.set(vss.DRIVER_DOOR, True)
            await agent.until_no_worker()
            async with asyncio.timeout(WITHIN_S):
                while agent.resident_bytes > before + (at_work - before) / 2:
                    await asyncio.sleep(0.01)
            assert at_work > before + 5 * mib
            assert await agent.stop() == 0
