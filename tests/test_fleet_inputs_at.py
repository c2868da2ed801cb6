"""Inputs that are larger than a message: a fleet says where they stand, and vehicles fetch them."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from agents import RunningAgent, agent, write_config
from test_fleet_dispatch import NULL, dispatch, is_ready

from agent.link import LinkOptions
from agent.protocol.messages import Datatype
from fleet.broker import Broker
from fleet.client import FleetClient, Input, InputsAt, TaskFailed
from fleet.dispatcher import Dispatcher

ROWS, ROW_BYTES = 50, 40_000
FRAMES = b"".join(bytes([row]) * ROW_BYTES for row in range(ROWS))
"""2 MB, where a message holds one."""
CROP = bytes([1, 2, 3])


@pytest.fixture
def frames(tmp_path: Path) -> InputsAt:
    """Where they stand: the frames, then the crop that all of them share."""
    body = FRAMES + CROP
    path = tmp_path / "data" / "frames"
    path.parent.mkdir()
    path.write_bytes(body)
    return InputsAt(path.as_uri(), hashlib.sha256(body).hexdigest())


INPUTS = [
    Input("x", Datatype.UINT8, [ROWS, ROW_BYTES]),
    Input("crop", Datatype.UINT8, [len(CROP)], shared=True),
]


@pytest.fixture
async def car(tmp_path: Path, iotcore: Broker) -> AsyncIterator[RunningAgent]:
    reachable = f'\n[inputs]\nfile_dirs = ["{tmp_path}/data"]\n'
    async with agent(write_config(tmp_path, iotcore.port, extra=reachable)) as running:
        yield running


def client(port: int) -> FleetClient:
    return FleetClient(LinkOptions(host="127.0.0.1", port=port, client_id="fleet-1"))


async def test_a_vehicle_fetches_what_no_message_holds(
    car: RunningAgent, iotcore: Broker, frames: InputsAt
) -> None:
    async with client(iotcore.port) as fleet:
        await fleet.until_up(20)
        answer = await fleet.vehicle("veh-1", "BR").submit(NULL, INPUTS, inputs_at=frames, rows=(1, 4))
    assert answer.outputs["x"].data == FRAMES[ROW_BYTES : 4 * ROW_BYTES]
    assert car.rows_done == 3


async def test_a_queue_keeps_where_they_stand_over_a_restart(
    tmp_path: Path, iotcore: Broker, frames: InputsAt
) -> None:
    queue = tmp_path / "queue.db"
    async with Dispatcher(client(iotcore.port), queue) as dispatcher:
        await dispatcher.add(NULL, INPUTS, id="night-1", inputs_at=frames)
    reachable = f'\n[inputs]\nfile_dirs = ["{tmp_path}/data"]\n'
    fleet = client(iotcore.port)
    async with (
        agent(write_config(tmp_path, iotcore.port, extra=reachable)),
        Dispatcher(fleet, queue) as dispatcher,
    ):
        await fleet.vehicle("veh-1", "BR").wait_for(is_ready, within_s=30)
        async with aclosing(dispatcher.answers()) as answers:
            finished = await anext(answers)
    assert finished.answer().outputs["x"].data == FRAMES


@pytest.mark.usefixtures("car")
async def test_a_task_file_names_them(tmp_path: Path, iotcore: Broker, frames: InputsAt) -> None:
    document: dict[str, Any] = {
        "id": "night-1",
        "model": {"name": NULL.name, "version": NULL.version, "sha256": NULL.sha256, "format": "onnx"},
        "inputs": [
            {
                "name": "x",
                "datatype": "UINT8",
                "shape": [ROWS, ROW_BYTES],
                "parameters": {"binary_data_size": len(FRAMES)},
            },
            {
                "name": "crop",
                "datatype": "UINT8",
                "shape": [len(CROP)],
                "parameters": {"binary_data_size": len(CROP), "shared": True},
            },
        ],
        "inputs_url": frames.url,
        "inputs_sha256": frames.sha256,
    }
    path = tmp_path / "night-1.json"
    path.write_text(json.dumps(document))
    code, out, err = await dispatch(tmp_path, iotcore.port, [path])
    assert (code, err) == (0, ""), out
    assert out.startswith("night-1 done, 50 rows, attempts: 1\n")


@pytest.mark.parametrize(
    ("inputs", "at", "says"),
    [
        (INPUTS, None, "an input without data stands at a URL: give inputs_at"),
        (
            [Input("x", Datatype.UINT8, [1], b"\1")],
            InputsAt("https://example.org/x", "0" * 64),
            "inputs_at says where all inputs stand: give none of them data",
        ),
    ],
)
async def test_inputs_are_in_one_place(
    tmp_path: Path, iotcore: Broker, inputs: list[Input], at: InputsAt | None, says: str
) -> None:
    async with Dispatcher(client(iotcore.port), tmp_path / "queue.db") as dispatcher:
        with pytest.raises(TaskFailed, match=f"102 bad_tensor: {says}"):
            await dispatcher.add(NULL, inputs, inputs_at=at)
        assert not dispatcher.pending
