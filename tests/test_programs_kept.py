"""Programs stay loaded while the car stays ready, up to half of what their worker may take."""

import json
from pathlib import Path

import pytest
from agents import TOPICS, agent, write_config
from wire_fleet import WireFleet, task, wire_fleet

from agent.protocol.messages import Datatype, Tensor, TensorParameters
from fleet.broker import Broker


async def run(fleet: WireFleet, name: str, width: int) -> None:
    """A task whose rows are so wide needs a program of its own."""
    message, _ = task(name)
    tensor = Tensor("x", Datatype.UINT8, [8, width], TensorParameters(binary_data_size=8 * width))
    message.inputs = [tensor]
    fleet.send((message, bytes(8 * width)))
    await fleet.until(lambda: fleet.is_final(name), name)


@pytest.fixture(autouse=True)
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


async def test_the_program_that_was_used_least_recently_makes_room(tmp_path: Path, iotcore: Broker) -> None:
    config = write_config(tmp_path, iotcore.port, backend="picky_backend:Heavy")
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        (station,) = car.service.stations
        for turn, width in enumerate((16, 32, 16, 64)):
            await run(fleet, f"night-{turn}", width)
        assert [json.loads(program[64:])[0][0][2] for program in station._loads] == [[16], [64]]
        await run(fleet, "night-9", 32)  # what was let go of is loaded again
