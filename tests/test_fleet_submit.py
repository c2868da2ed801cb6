"""`parkwatt fleet submit`, as a person uses it."""

import asyncio
import datetime as dt
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake_vehicle import MODEL, Assigned, FakeVehicle, say_nothing

from agent.protocol import jws
from agent.protocol.keys import load_public_key
from agent.protocol.messages import (
    Datatype,
    EnergySource,
    Result,
    TaskState,
    Tensor,
    TensorParameters,
    Usage,
)
from agent.protocol.reasons import Reason
from fleet.broker import Broker, IotcoreBroker, free_port

TASK: dict[str, Any] = {
    "id": "first-task",
    "model": json.loads(msgspec.json.encode(MODEL)),
    "inputs": [{"name": "x", "datatype": "INT32", "shape": [4, 1], "data": [[0], [1], [2], [3]]}],
}


@pytest.fixture
def broker() -> Iterator[Broker]:  # one kind will do: the command adds nothing to what the client does
    with IotcoreBroker() as running:
        yield running


@pytest.fixture
async def car(broker: Broker) -> AsyncIterator[FakeVehicle]:
    async with FakeVehicle(broker.port) as vehicle:
        yield vehicle


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    return written(tmp_path / "task.json", TASK)


def written(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document, indent=2))
    return path


async def parkwatt_fleet(*arguments: object) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "agent",
        "fleet",
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def submit(port: int, *arguments: object) -> tuple[int | None, str, str]:
    return await parkwatt_fleet(
        "submit", *arguments, "--vehicle", "veh-0001", "--region", "BR", "--port", port
    )


async def test_a_task_from_a_file_is_done_and_shown(car: FakeVehicle, task_file: Path) -> None:
    code, out, err = await submit(car.port, task_file)
    assert (code, err) == (0, "")
    first, values, summary = out.splitlines()
    assert first == "first-task rows 0-4 of 0-4 on fake fake0, 40.0 ms, 8 J (model)"
    assert values == "  y INT32 [4, 1]: 1 2 3 4"
    assert summary.startswith("1 of 1 tasks done, 4 rows, ")
    assert summary.endswith(" s, 8 J (model)")
    task = (await car.nth(1)).task
    assert (task.id, task.attempt, task.audience, task.lease_s) == ("first-task", 1, "veh-0001", 60)


async def test_answers_are_written_as_files(car: FakeVehicle, task_file: Path, tmp_path: Path) -> None:
    half = Tensor("half/../precision", Datatype.FP16, [4], TensorParameters(8))
    whole = Tensor("label", Datatype.INT8, [4, 1], data=[1, 2, 3, 4])
    usage = Usage(0.1, 0.1, None, EnergySource.NONE, None, "fake", "fake0")

    def answer(car: FakeVehicle, got: Assigned) -> None:
        result = Result(got.task.id, got.task.attempt, "m", "1", (0, 4), True, [half, whole], usage)
        car.give_raw(result, bytes(range(8)))

    car.on_task = answer
    code, out, _ = await submit(car.port, task_file, "--out", tmp_path / "answers")
    assert code == 0
    assert "no meter" in out
    document = json.loads((tmp_path / "answers/first-task.json").read_text())
    assert (document["id"], document["model_name"], document["attempts"]) == ("first-task", "plus-one", 1)
    in_file, in_json = document["outputs"]
    assert in_json == {"name": "label", "datatype": "INT8", "shape": [4, 1], "data": [[1], [2], [3], [4]]}
    assert (tmp_path / "answers" / in_file["file"]).read_bytes() == bytes(range(8))


async def test_tasks_without_an_id_get_one_each(car: FakeVehicle, tmp_path: Path) -> None:
    nameless = {name: value for name, value in TASK.items() if name != "id"}
    paths = [written(tmp_path / f"{number}.json", nameless) for number in range(3)]
    code, out, _ = await submit(car.port, *paths)
    assert code == 0
    assert "3 of 3 tasks done, 12 rows" in out
    assert len({got.task.id for got in car.tasks}) == 3


async def test_keygen_makes_the_key_that_signs(broker: Broker, task_file: Path, tmp_path: Path) -> None:
    code, _, _ = await parkwatt_fleet("keygen", tmp_path / "keys", "--kid", "me")
    assert code == 0
    verifier = jws.Verifier({"me": load_public_key(tmp_path / "keys/me.pem")})
    async with FakeVehicle(broker.port, verifier=verifier) as car:
        code, _, err = await submit(broker.port, task_file, "--key", tmp_path / "keys/me.key")
        assert (code, err) == (0, "")
    assert car.signed_by == {"me"}


async def test_a_failed_task_is_one_line_and_exit_1(
    car: FakeVehicle, task_file: Path, tmp_path: Path
) -> None:
    def refuse_the_first(car: FakeVehicle, got: Assigned) -> None:
        if got.task.id == "first-task":
            car.say(got, TaskState.REJECTED, Reason.REPLAYED, "other bytes")
        else:
            car.answer(got)

    car.on_task = refuse_the_first
    second = written(tmp_path / "second.json", {**TASK, "id": "second"})
    code, out, err = await submit(car.port, task_file, second)
    assert code == 1
    assert err == (
        f"{task_file}: task first-task: 122 replayed: other bytes: this vehicle has had this task, "
        "leave `id` out of the file or raise `attempt` (0 of 4 rows done)\n"
    )
    assert "1 of 2 tasks done, 4 rows" in out


async def test_a_task_that_expires_is_told(car: FakeVehicle, tmp_path: Path) -> None:
    car.on_task = say_nothing
    soon = written(tmp_path / "soon.json", {**TASK, "expires_at": _in_seconds(6)})
    code, _, err = await submit(car.port, soon)
    assert code == 1
    assert "110 expired: 0 of 4 rows by" in err


def _in_seconds(seconds: float) -> str:
    return (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"audience": "veh-2"},
            "`audience` is 'veh-2', --vehicle is 'veh-0001': leave it out or make them one",
        ),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "`expires_at` 2020-01-01T00:00:00Z is over: leave it out"),
        (
            {"inputs": [{"name": "x", "datatype": "INT32", "shape": [2], "data": [1]}]},
            "102 bad_tensor: tensor 'x': has 1 items where [2] has 2",
        ),
        (
            {
                "inputs": [
                    {
                        "name": "x",
                        "datatype": "INT8",
                        "shape": [2],
                        "parameters": {"binary_data_size": 2},
                    }
                ]
            },
            "input 'x': a task file holds its inputs as `data`, or names an `inputs_url`",
        ),
        (
            {"inputs_url": "https://example.org/x", "inputs_sha256": "0" * 64},
            "input 'x': stands at `inputs_url`, give it `binary_data_size` and no `data`",
        ),
        (
            {
                "inputs_url": "https://example.org/x",
                "inputs_sha256": "0" * 64,
                "inputs": [
                    {
                        "name": "x",
                        "datatype": "INT8",
                        "shape": [2],
                        "parameters": {"binary_data_size": 3},
                    }
                ],
            },
            "102 bad_tensor: tensor 'x': binary_data_size 3 is not the 2 bytes of INT8 [2]",
        ),
        ({"model": 3}, "100 malformed: Expected `object`, got `int` - at `$.model`"),
    ],
)
async def test_a_wrong_file_is_one_line(tmp_path: Path, change: dict[str, Any], error: str) -> None:
    path = written(tmp_path / "task.json", TASK | change)
    assert await submit(1, path) == (1, "", f"{path}: {error}\n")


async def test_what_is_missing_is_one_line(tmp_path: Path, task_file: Path) -> None:
    nowhere = tmp_path / "nowhere.json"
    expected = (1, "", f"{nowhere}: No such file or directory: give the path of a task file\n")
    assert await submit(1, nowhere) == expected
    not_json = tmp_path / "not.json"
    not_json.write_text("hello")
    code, _, err = await submit(1, not_json)
    assert (code, err.count("\n"), err.startswith(f"{not_json}: 100 malformed: ")) == (1, 1, True)
    code, _, err = await submit(1, task_file, "--key", tmp_path / "no.key")
    assert (code, err) == (
        1,
        f"{tmp_path}/no.key: No such file or directory: give the path of a private key file\n",
    )
    twice = written(tmp_path / "twice.json", TASK)
    code, _, err = await submit(1, task_file, twice)
    assert (code, err) == (1, f"{twice}: `id` 'first-task' is that of {task_file} too: leave one out\n")


async def test_a_broker_that_is_not_there_is_one_line(task_file: Path) -> None:
    port = free_port()
    code, out, err = await submit(port, task_file, "--wait-s", "0.3")
    assert (code, out) == (1, "")
    assert err.startswith(f"no connection to 127.0.0.1:{port}: ")
    assert err.endswith("start a broker there, or give another host and port\n")
    assert err.count("\n") == 1
