"""Tasks whose inputs stand at a URL, through the whole service: over https, and from files of this computer."""

import asyncio
import datetime as dt
import hashlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_process import running_agent
from agents import TOPICS, RunningAgent, agent, write_config
from https_server import Answer, Behaviour, HttpsServer, Request, file, in_turn, says
from wire_fleet import WITHIN_S, WireFleet, now, task, wire_fleet

from agent.protocol.messages import (
    Cancel,
    Datatype,
    Drain,
    Event,
    ModelFormat,
    ModelRef,
    RequestedOutput,
    Task,
    TaskState,
    Tensor,
    TensorParameters,
)
from agent.protocol.reasons import Reason
from benchmarks.certificates import Authority
from fleet.broker import Broker

ROW_BYTES = 16
BODY = b"".join(bytes([row]) * ROW_BYTES for row in range(8))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def server(authority: Authority) -> Iterator[HttpsServer]:
    with HttpsServer(authority.issue("server"), {"/x": file(BODY)}) as server:
        yield server


@pytest.fixture
def config(tmp_path: Path, iotcore: Broker, server: HttpsServer, authority: Authority) -> Path:
    return configured(tmp_path, iotcore, server, authority)


def configured(
    folder: Path, broker: Broker, server: HttpsServer, authority: Authority, extra: str = ""
) -> Path:
    (folder / "data").mkdir(exist_ok=True)
    inputs = f"""
[inputs]
hosts = ["127.0.0.1:{server.port}"]
file_dirs = ["{folder}/data"]
max_bytes = 1_000_000
private_networks = true
ca_file = "{authority.path}"
"""
    return write_config(folder, broker.port, extra=inputs + extra)


def by_url(task_id: str, url: str, body: bytes = BODY, **changes: Any) -> tuple[Task, bytes]:
    """A task for the null backend whose rows of 16 bytes are at `url`."""
    rows = len(body) // ROW_BYTES
    tensor = Tensor("x", Datatype.UINT8, [rows, ROW_BYTES], TensorParameters(binary_data_size=len(body)))
    fields = {"inputs": [tensor], "inputs_url": url, "inputs_sha256": hashlib.sha256(body).hexdigest()}
    message, _ = task(task_id, **(fields | changes))
    return message, b""


def answered(fleet: WireFleet, task_id: str) -> bytes:
    """The rows that came back, each exactly once; the null backend gives back what it gets."""
    parts = sorted((result.rows, tail) for result, tail in fleet.results if result.id == task_id)
    ends = [0, *(rows[1] for rows, _ in parts)]
    assert [rows[0] for rows, _ in parts] == ends[:-1]
    return b"".join(tail for _, tail in parts)


class Tap:
    """A body that stops after its first bytes until the tap is opened; every request is let go on from its range."""

    def __init__(self, server: HttpsServer, body: bytes, first: int) -> None:
        self.opened = threading.Event()
        self._server = server
        self._body = body
        self._first = first

    def __call__(self, request: Request) -> Answer:
        whole = file(self._body)(request)
        yield next(whole)
        rest = next(whole)
        if not request.begin:
            yield rest[: self._first]
            rest = rest[self._first :]
        while not (self.opened.is_set() or self._server.stopping.is_set()):
            self.opened.wait(0.02)
        yield rest


def threads_that_fetch() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in {"inputs", "model"}]


def resting(car: RunningAgent) -> bool:
    return not threads_that_fetch() and not car.service.executor.supplies._errands


async def said(fleet: WireFleet, task_id: str, state: TaskState) -> tuple[Reason, str]:
    event: Event = await fleet.heard_event(task_id, state)
    assert event.reason is not None
    return event.reason.code, event.reason.text


async def until_asked(car: RunningAgent, server: HttpsServer, times: int = 1) -> None:
    await car.until(lambda: len(server.requests) >= times, f"{times} requests")


async def test_inputs_come_over_https_and_from_a_folder(
    config: Path, iotcore: Broker, server: HttpsServer
) -> None:
    (config.parent / "data/x y").write_bytes(BODY)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(by_url("https", server.url("/x?sig=1")))
        fleet.send(by_url("file", (config.parent / "data/x y").as_uri(), rows=(2, 5)))
        await fleet.until(lambda: fleet.is_final("https") and fleet.is_final("file"), "the answers")
        assert answered(fleet, "https") == BODY
        ((result, tail),) = [each for each in fleet.results if each[0].id == "file"]
        assert result.rows == (2, 5)
        assert tail == BODY[2 * ROW_BYTES : 5 * ROW_BYTES]
        await car.until(lambda: resting(car), "nothing is fetched")
    assert list((config.parent / "cache/inputs").iterdir()) == []


async def test_several_inputs_stand_behind_one_another(
    config: Path, iotcore: Broker, server: HttpsServer
) -> None:
    body = BODY + b"\1\0\1"
    server.behave["/two"] = file(body)
    tensors = [
        Tensor("x", Datatype.UINT8, [8, 16], TensorParameters(binary_data_size=128)),
        Tensor("mask", Datatype.BOOL, [3], TensorParameters(binary_data_size=3, shared=True)),
    ]
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        sha256 = hashlib.sha256(body).hexdigest()
        fleet.send(by_url("two", server.url("/two"), inputs=tensors, inputs_sha256=sha256))
        await fleet.until(lambda: fleet.is_final("two"), "the answer")


# What is refused at once: nothing has been connected to


def tensor(**changes: Any) -> list[Tensor]:
    fields: dict[str, Any] = {"name": "x", "datatype": Datatype.UINT8, "shape": [8, 16]}
    return [Tensor(**(fields | changes))]


LARGE = tensor(shape=[62_501, 16], parameters=TensorParameters(binary_data_size=1_000_016))
REFUSED: dict[str, tuple[dict[str, Any], Reason]] = {
    "plain http": ({"inputs_url": "http://127.0.0.1/x"}, Reason.INPUT_FETCH),
    "a host that is not listed": ({"inputs_url": "https://169.254.169.254/latest/"}, Reason.INPUT_FETCH),
    "credentials": ({"inputs_url": "https://a:b@127.0.0.1/x"}, Reason.INPUT_FETCH),
    "a fragment": ({"inputs_url": "https://127.0.0.1/x#y"}, Reason.INPUT_FETCH),
    "a file elsewhere": ({"inputs_url": "file:///etc/passwd"}, Reason.INPUT_FETCH),
    "more than may be fetched": ({"inputs": LARGE}, Reason.TOO_LARGE),
    "no size": ({"inputs": tensor(data=[0] * 128)}, Reason.BAD_TENSOR),
    "another size than the shape's": (
        {"inputs": tensor(parameters=TensorParameters(binary_data_size=127))},
        Reason.BAD_TENSOR,
    ),
    "data that has to stay elsewhere, whatever its URL": (
        {"residency": ["DE"], "inputs_url": "http://127.0.0.1/x"},
        Reason.RESIDENCY,
    ),
}


@pytest.mark.parametrize("why", sorted(REFUSED))
async def test_a_url_that_cannot_work_is_refused_before_anything_is_fetched(
    config: Path, iotcore: Broker, server: HttpsServer, why: str
) -> None:
    changes, reason = REFUSED[why]
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(by_url("bad", server.url("/x"), **changes))
        code, text = await said(fleet, "bad", TaskState.REJECTED)
        assert code is reason
        assert text
    assert server.connections == 0


async def test_without_a_list_of_hosts_no_inputs_are_fetched(
    tmp_path: Path, iotcore: Broker, server: HttpsServer
) -> None:
    async with agent(write_config(tmp_path, iotcore.port)), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(by_url("bad", server.url("/x")))
        assert (await said(fleet, "bad", TaskState.REJECTED))[0] is Reason.INPUT_FETCH


async def test_bytes_both_in_the_message_and_at_a_url_are_one_too_many(
    config: Path, iotcore: Broker, server: HttpsServer
) -> None:
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        message, _ = by_url("both", server.url("/x"))
        fleet.send((message, BODY))
        assert (await said(fleet, "both", TaskState.REJECTED))[0] is Reason.BAD_TENSOR


# What the fetch itself brings to light


WRONG: dict[str, tuple[Behaviour, TaskState, Reason, str]] = {
    "absent": (says("404 Not Found"), TaskState.FAILED, Reason.INPUT_FETCH, "answered 404"),
    "short": (file(BODY[:-1]), TaskState.FAILED, Reason.INPUT_FETCH, "127 bytes where the inputs have 128"),
    "other bytes": (file(BODY[::-1]), TaskState.FAILED, Reason.INPUT_HASH, "SHA-256"),
    "busy": (says("503 Busy", "Retry-After: 3600"), TaskState.RELEASED, Reason.LINK_LOST, "answered 503"),
}


@pytest.mark.parametrize("what", sorted(WRONG))
async def test_what_cannot_be_fetched_ends_the_task_with_its_code(
    config: Path, iotcore: Broker, server: HttpsServer, what: str
) -> None:
    server.behave["/bad"], state, reason, words = WRONG[what]
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(by_url("bad", server.url("/bad?sig=secret")))
        code, text = await said(fleet, "bad", state)
        assert code is reason
        assert words in text
        assert "secret" not in text
        fleet.send(by_url("good", server.url("/x")))
        await fleet.until(lambda: fleet.is_final("good"), "the good task's answer")


async def test_bytes_that_are_no_bool_are_seen_where_they_arrive(
    config: Path, iotcore: Broker, server: HttpsServer
) -> None:
    inputs = tensor(datatype=Datatype.BOOL, parameters=TensorParameters(binary_data_size=128))
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(by_url("bad", server.url("/x"), inputs=inputs))
        assert (await said(fleet, "bad", TaskState.FAILED))[0] is Reason.BAD_TENSOR


async def test_a_link_out_of_the_folder_is_not_followed(config: Path, iotcore: Broker) -> None:
    (config.parent / "data/link").symlink_to(config)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(by_url("bad", (config.parent / "data/link").as_uri()))
        code, text = await said(fleet, "bad", TaskState.FAILED)
        assert code is Reason.INPUT_FETCH
        assert "leads out of the folders" in text


# A fetch is work like any other: it can be stopped, goes on, and renews its lease


async def test_an_owner_who_comes_during_a_fetch_stops_it_and_it_goes_on_when_he_has_left(
    config: Path, iotcore: Broker, server: HttpsServer
) -> None:
    tap = server.behave["/slow"] = Tap(server, BODY, first=48)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(by_url("slow", server.url("/slow"), lease_s=6.0))
        await fleet.heard_event("slow", TaskState.RUNNING)
        car.car.open_door()
        code, _ = await said(fleet, "slow", TaskState.PREEMPTED)
        assert code is Reason.OWNER_PRESENT
        await car.until(lambda: resting(car), "the fetch has stopped")
        assert len(server.requests) == 1
        tap.opened.set()
        car.car.close_door()
        await fleet.until(lambda: fleet.is_final("slow"), "the answer")
        assert answered(fleet, "slow") == BODY
        assert [request.begin for request in server.requests] == [0, 48]


async def test_nothing_is_fetched_while_the_owner_has_the_car(
    config: Path, iotcore: Broker, server: HttpsServer
) -> None:
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        car.car.open_door()
        fleet.send(by_url("later", server.url("/x")))
        await fleet.heard_event("later", TaskState.ACCEPTED)
        assert server.connections == 0
        car.car.close_door()
        await fleet.until(lambda: fleet.is_final("later"), "the answer")


async def test_a_preempted_task_keeps_its_inputs(config: Path, iotcore: Broker, server: HttpsServer) -> None:
    slow = config.read_text().replace("run_us = 0", "run_us = 60_000")
    config.write_text(slow)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(by_url("night", server.url("/x")))
        await car.until_rows(2)
        car.car.open_door()
        await fleet.heard_event("night", TaskState.PREEMPTED)
        car.car.close_door()
        await fleet.until(lambda: fleet.is_final("night"), "the answer")
        assert answered(fleet, "night") == BODY
        assert len(server.requests) == 1


async def test_a_long_fetch_renews_its_lease(config: Path, iotcore: Broker, server: HttpsServer) -> None:
    tap = server.behave["/slow"] = Tap(server, BODY, first=48)
    async with agent(config), wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(by_url("slow", server.url("/slow"), lease_s=6.0))
        await fleet.until(
            lambda: fleet.states_of("slow").count(TaskState.RUNNING) > 3, "renewals for longer than the lease"
        )
        tap.opened.set()
        await fleet.until(lambda: fleet.is_final("slow"), "the answer")
        assert TaskState.EXPIRED not in fleet.states_of("slow")


@pytest.mark.parametrize("how", ["cancel", "drain", "deadline"])
async def test_a_task_that_ends_takes_its_fetch_with_it(
    config: Path, iotcore: Broker, server: HttpsServer, how: str
) -> None:
    server.behave["/slow"] = Tap(server, BODY, first=48)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        due = now() + dt.timedelta(seconds=8 if how == "deadline" else 300)
        fleet.send(by_url("slow", server.url("/slow"), expires_at=due))
        await until_asked(car, server)
        if how == "cancel":
            fleet.control(Cancel("veh-1", now(), "slow", 1))
        elif how == "drain":
            fleet.control(Drain("veh-1", now()))
        ends = {"cancel": TaskState.CANCELLED, "drain": TaskState.RELEASED, "deadline": TaskState.EXPIRED}
        await fleet.heard_event("slow", ends[how])
        await car.until(lambda: resting(car), "the fetch has stopped")
        assert car.service.executor.supplies.inputs._deliveries == {}


async def test_slow_fetches_keep_no_other_task_waiting(
    config: Path, iotcore: Broker, server: HttpsServer
) -> None:
    tap = server.behave["/slow"] = Tap(server, BODY, first=48)
    names = [f"slow-{number}" for number in range(6)]
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        for name in names:
            fleet.send(by_url(name, server.url("/slow")))
        await until_asked(car, server, times=4)
        fleet.send(task("quick"))
        await fleet.until(lambda: fleet.is_final("quick"), "the answer of a task that has its inputs")
        assert len(server.requests) == 4  # and no more at a time
        tap.opened.set()
        await fleet.until(lambda: all(fleet.is_final(name) for name in names), "the other answers")


async def test_open_inputs_are_bounded_and_one_task_always_fits(
    config: Path, iotcore: Broker, server: HttpsServer
) -> None:
    body = bytes(600_000)
    server.behave["/big"] = Tap(server, body, first=48)
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        fleet.send(by_url("first", server.url("/big"), body))
        await until_asked(car, server)
        fleet.send(by_url("second", server.url("/big"), body))
        code, text = await said(fleet, "second", TaskState.REJECTED)
        assert code is Reason.QUEUE_FULL
        assert "600000 + 600000 bytes from URLs, inputs.max_bytes is 1000000" in text


async def test_an_agent_that_is_killed_during_a_fetch_does_it_again(
    config: Path, iotcore: Broker, server: HttpsServer
) -> None:
    tap = Tap(server, BODY, first=48)
    server.behave["/slow"] = in_turn(tap, file(BODY))
    async with wire_fleet(iotcore.port, TOPICS) as fleet:
        async with running_agent(config) as process:
            await fleet.until(fleet.last_state, "a state")
            fleet.send(by_url("slow", server.url("/slow")))
            async with asyncio.timeout(WITHIN_S):
                while not server.requests:
                    await asyncio.sleep(0.01)
            await process.crash()
        assert list((config.parent / "cache/inputs").iterdir()) == []
        async with running_agent(config) as process:
            await fleet.until(lambda: fleet.is_final("slow"), "the answer")
            assert answered(fleet, "slow") == BODY
            assert await process.stop() == 0


async def test_a_stop_does_not_wait_for_a_server(config: Path, iotcore: Broker, server: HttpsServer) -> None:
    server.behave["/slow"] = Tap(server, BODY, first=48)
    async with wire_fleet(iotcore.port, TOPICS) as fleet:
        async with agent(config) as car:
            fleet.send(by_url("slow", server.url("/slow")))
            await until_asked(car, server)
        assert (await said(fleet, "slow", TaskState.RELEASED))[0] is Reason.RESTARTED
        await car.until(lambda: not threads_that_fetch(), "its thread has ended")


async def test_inputs_that_were_read_take_no_memory_from_an_owner(
    config: Path, iotcore: Broker, server: HttpsServer
) -> None:
    config.write_text(config.read_text().replace("max_bytes = 1_000_000", "max_bytes = 100_000_000"))
    config.write_text(config.read_text().replace("run_us = 0", "run_us = 20_000"))
    rows, shared_bytes = 2000, 4 << 20
    body = bytes(rows * ROW_BYTES + shared_bytes)
    server.behave["/large"] = file(body)
    inputs = [
        Tensor("x", Datatype.UINT8, [rows, ROW_BYTES], TensorParameters(rows * ROW_BYTES)),
        Tensor("y", Datatype.UINT8, [shared_bytes], TensorParameters(shared_bytes, shared=True)),
    ]
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        before = file_pages_kib()
        fleet.send(by_url("large", server.url("/large"), body, inputs=inputs, outputs=[RequestedOutput("x")]))
        await car.until(lambda: file_pages_kib() - before > 3072, "rows that were read")
        car.car.open_door()
        await car.until(lambda: file_pages_kib() - before < 1024, "pages that were given back")


def file_pages_kib() -> int:
    """Of this process, in memory (proc(5))."""
    found = re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


# Models


async def test_a_model_over_https_is_fetched_like_inputs_are(
    tmp_path: Path, iotcore: Broker, server: HttpsServer, authority: Authority
) -> None:
    """It renews the lease, stops for the owner, goes on after him, and then runs."""
    model = b"weights" * 100
    sha256 = hashlib.sha256(model).hexdigest()
    tap = server.behave[f"/models/{sha256}"] = Tap(server, model, first=300)
    config = write_config(tmp_path, iotcore.port)
    source = f'source = "{server.url("/models")}"\nprivate_networks = true\nca_file = "{authority.path}"'
    config.write_text(config.read_text().replace(f'source = "file://{tmp_path}/models"', source))
    async with agent(config) as car, wire_fleet(iotcore.port, TOPICS) as fleet:
        offer = task("night", lease_s=6.0, model=ModelRef("m", "1", sha256, ModelFormat.ONNX))
        fleet.send(offer)
        await fleet.heard_event("night", TaskState.RUNNING)
        car.car.open_door()
        await fleet.heard_event("night", TaskState.PREEMPTED)
        await car.until(lambda: resting(car), "the fetch has stopped")
        tap.opened.set()
        car.car.close_door()
        await fleet.until(lambda: fleet.is_final("night"), "the answer")
        assert answered(fleet, "night") == BODY
        assert [request.begin for request in server.requests] == [0, 300]
