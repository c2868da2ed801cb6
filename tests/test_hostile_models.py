"""A model that lies, bursts or never ends costs its own task; the agent and its other backends go on."""

import hashlib
import os
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import model_bombs
import pytest
from agents import TOPICS, RunningAgent, agent, write_config
from wire_fleet import WireFleet, task, wire_fleet

from agent.protocol.messages import (
    Datatype,
    Event,
    ModelFormat,
    ModelRef,
    OutputParameters,
    RequestedOutput,
    TaskState,
    Tensor,
    TensorParameters,
)
from agent.protocol.reasons import Reason
from backends import calls
from backends.tiny_onnx import one_node
from fleet.broker import Broker

pytest.importorskip("onnxruntime")
SLOW_US = 60_000
GOOD = one_node("Softmax", {"x": model_bombs.ROW}, model_bombs.ROW)
MORE_BACKENDS = """
[[backends]]
use = "cpu"
max_power_w = 60
max_load_s = 1
[[backends]]
use = "tflite"
max_power_w = 60
max_load_s = 1
"""


@dataclass
class Garage:
    """A car with a null, a cpu and a tflite backend, and its fleet."""

    car: RunningAgent
    fleet: WireFleet
    folder: Path

    def send(
        self,
        name: str,
        data: bytes,
        backend: str,
        *,
        told: tuple[int, ...] = (),
        as_json: bool = False,
    ) -> None:
        """Offer one row of four zeros for this model; `told` is its second input."""
        sha256 = hashlib.sha256(data).hexdigest()
        (self.folder / "models" / sha256).write_bytes(data)
        inputs = [Tensor("x", Datatype.FP32, [1, 4], TensorParameters(binary_data_size=16))]
        if told:
            size = TensorParameters(binary_data_size=8 * len(told), shared=True)
            inputs.append(Tensor("to" if len(told) == 2 else "turns", Datatype.INT64, [len(told)], size))
        offer, _ = task(name, inputs=inputs, backend=backend)
        offer.model = ModelRef(
            name, "1", sha256, ModelFormat.TFLITE if backend == "tflite" else ModelFormat.ONNX
        )
        if as_json:
            offer.outputs = [RequestedOutput("y", OutputParameters(binary_data=False))]
        self.fleet.send((offer, bytes(16) + struct.pack(f"<{len(told)}q", *told)))

    async def ended(self, name: str) -> Event:
        """How a task ended that was not answered."""
        ends = {TaskState.FAILED, TaskState.RELEASED}
        await self.fleet.until(lambda: ends & set(self.fleet.states_of(name)), f"the end of {name}")
        (event,) = [event for event in self.fleet.events if event.id == name and event.state in ends]
        assert event.reason is not None
        assert event.reason.text
        assert event.reason.text.isprintable()
        return event

    async def answered(self, name: str, rows: int = 1) -> None:
        await self.fleet.until(lambda: self.fleet.is_final(name), f"the answer to {name}")
        answered = sorted(row for begin, end in self.fleet.rows(name) for row in range(begin, end))
        assert answered == list(range(rows))

    async def cpu_goes_on(self) -> None:
        self.send("good", GOOD, "cpu")
        await self.answered("good")

    def worker(self, backend: str) -> int | None:
        return next(station.pid for station in self.car.service.stations if station.name == backend)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A folder with a car's in it, and beside that a file that no model may read."""
    (tmp_path / "car").mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    return tmp_path


@pytest.fixture
async def garage(scene: Path, iotcore: Broker) -> AsyncIterator[Garage]:
    async with working_beside(scene / "car", iotcore.port) as present:
        yield present


@asynccontextmanager
async def working_beside(folder: Path, port: int) -> AsyncIterator[Garage]:
    """Everything that happens inside happens while the null backend works; its rows are answered, each once."""
    config = write_config(folder, port, run_us=SLOW_US, extra=MORE_BACKENDS)
    async with agent(config) as car, wire_fleet(port, TOPICS) as fleet:
        present = Garage(car, fleet, folder)
        fleet.send(task("beside", count=8, backend="null"))
        await car.until_rows(1)
        null_worker = present.worker("null")
        yield present
        fleet.send(task("next", count=2, backend="null"))
        await present.answered("beside", 8)
        await present.answered("next", 2)
        assert present.worker("null") == null_worker
        assert not car.service.preemptions.done


NO_MODELS = {
    "empty": b"",
    "junk": model_bombs.noise(1000),
    "zip": model_bombs.zipped(),
    "gzip": model_bombs.gzipped(),
    "cut off": GOOD[:-9],
}
ONLY_BY_NAME = {
    "head of one": b"\x1c\0\0\0TFL3",
    "head and junk": b"\x1c\0\0\0TFL3" + model_bombs.noise(1000),
    "onnx": GOOD,
}
REFUSED: dict[str, tuple[bytes, Reason]] = {
    "operator of somebody else": (model_bombs.of_another_domain(), Reason.MODEL_INVALID),
    "2 GiB that are not there": (model_bombs.of_two_gigabytes_that_are_not_there(), Reason.MODEL_INVALID),
    "overflowing size": (model_bombs.of_overflowing_size(), Reason.MODEL_INVALID),
    "output that nothing makes": (model_bombs.with_an_output_that_nothing_makes(), Reason.MODEL_INVALID),
    "output made twice": (model_bombs.with_fewer_outputs_than_it_makes(), Reason.MODEL_INVALID),
    "circle": (model_bombs.in_a_circle(), Reason.MODEL_INVALID),
    "graphs in graphs": (model_bombs.in_itself(depth=1000), Reason.MODEL_INVALID),
    "escapes in its names": (model_bombs.with_escapes_in_its_names(), Reason.MODEL_INVALID),
    "two rows at once": (
        one_node("Softmax", {"x": ("FP32", (2, 4))}, ("FP32", (2, 4))),
        Reason.MODEL_UNSUPPORTED,
    ),
    "strings": (
        one_node("Identity", {"x": ("STRING", ("n", 4))}, ("STRING", ("n", 4))),
        Reason.MODEL_UNSUPPORTED,
    ),
    "other names": (one_node("Softmax", {"z": model_bombs.ROW}, model_bombs.ROW), Reason.MODEL_UNSUPPORTED),
    "4 GiB for a row": (
        one_node("Softmax", {"x": ("FP32", ("n", 2**30))}, ("FP32", ("n", 2**30))),
        Reason.MODEL_UNSUPPORTED,
    ),
}


def slug(name: str) -> str:
    return name.replace(" ", "-")


async def test_what_is_no_model_or_lies_about_itself_is_refused_and_the_worker_lives(garage: Garage) -> None:
    await garage.cpu_goes_on()
    worker = garage.worker("cpu")
    for name, data in NO_MODELS.items():
        garage.send(slug(f"cpu {name}"), data, "cpu")
        assert code_of(await garage.ended(slug(f"cpu {name}"))) is Reason.MODEL_INVALID, name
    for name, (data, reason) in REFUSED.items():
        garage.send(slug(name), data, "cpu")
        assert code_of(await garage.ended(slug(name))) is reason, name
    assert garage.worker("cpu") == worker


async def test_what_is_no_tflite_model_is_refused_or_ends_that_worker_only(garage: Garage) -> None:
    for name, data in (NO_MODELS | ONLY_BY_NAME).items():
        garage.send(slug(name), data, "tflite")
        assert code_of(await garage.ended(slug(name))) in {Reason.MODEL_INVALID, Reason.MODEL_UNSUPPORTED}, (
            name
        )
    await garage.cpu_goes_on()


def code_of(event: Event) -> Reason:
    assert event.reason is not None
    return event.reason.code


LINKS: dict[str, Callable[[Path, Path], object]] = {
    "symbolic link": Path.symlink_to,
    "hard link": Path.hardlink_to,
}


async def test_a_model_is_its_own_bytes_wherever_it_points(garage: Garage, scene: Path) -> None:
    """Beside each file that a model may name, one of its owner's lies by that name."""
    secret, cache = scene / "secret", scene / "car" / "cache"
    for name, link in LINKS.items():
        for folder in (cache, scene / "car" / "models"):
            link(folder / slug(name), secret)
    up = os.path.relpath(secret, cache)
    for name, location in (
        ("up", up),
        ("far up", "../" * 20 + str(secret).lstrip("/")),
        ("absolute", str(secret)),
        ("uri", secret.as_uri()),
        *((name, slug(name)) for name in LINKS),
    ):
        garage.send(slug(name), model_bombs.data_from(location), "cpu")
        ended = await garage.ended(slug(name))
        assert code_of(ended) is Reason.MODEL_INVALID, name
        assert ended.reason is not None
        assert "xternal" in ended.reason.text, "it says what is wrong"
    await garage.cpu_goes_on()


@pytest.mark.parametrize(
    "bomb",
    [model_bombs.asks_for_32_gib, model_bombs.asks_for_32_gib_in_few_bytes],
    ids=lambda bomb: bomb.__name__,
)
async def test_a_small_model_that_asks_for_32_gib_gets_its_task_back(
    bomb: Callable[[], bytes], garage: Garage
) -> None:
    garage.send("bomb", bomb(), "cpu")
    assert code_of(await garage.ended("bomb")) in {Reason.OUT_OF_MEMORY, Reason.MODEL_INVALID}
    await garage.cpu_goes_on()


async def test_a_model_that_never_ends_is_ended_twice_and_then_refused(garage: Garage) -> None:
    garage.send("loop", model_bombs.loops_for_ever(), "cpu")
    ended = await garage.ended("loop")
    assert code_of(ended) is Reason.MODEL_INVALID
    assert ended.reason is not None
    assert "hung" in ended.reason.text
    garage.send("again", model_bombs.loops_for_ever(), "cpu")
    rejected = await garage.fleet.heard_event("again", TaskState.REJECTED)
    assert code_of(rejected) is Reason.MODEL_INVALID
    await garage.cpu_goes_on()


async def test_a_model_that_is_quick_until_it_is_told_otherwise_is_ended_too(
    garage: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "HUNG_FLOOR_S", 1.0)
    garage.send("quick", model_bombs.loops_as_told(), "cpu", told=(3,))
    await garage.answered("quick")
    garage.send("slow", model_bombs.loops_as_told(), "cpu", told=(model_bombs.MANY,))
    ended = await garage.ended("slow")
    assert code_of(ended) in {Reason.MODEL_INVALID, Reason.BACKEND_HUNG}
    assert ended.reason is not None
    assert "hung" in ended.reason.text
    await garage.cpu_goes_on()


async def test_nan_is_passed_on_as_it_is_and_has_no_form_in_json(garage: Garage) -> None:
    garage.send("binary", model_bombs.divides_zero_by_zero(), "cpu")
    await garage.answered("binary")
    (tail,) = [tail for result, tail in garage.fleet.results if result.id == "binary"]
    assert all(value != value for value in struct.unpack("<4f", tail))  # noqa: PLR0124 - what NaN is
    garage.send("json", model_bombs.divides_zero_by_zero(), "cpu", as_json=True)
    ended = await garage.ended("json")
    assert code_of(ended) is Reason.BAD_TENSOR
    await garage.cpu_goes_on()


async def test_an_output_of_another_shape_than_at_load_fails_the_task(garage: Garage) -> None:
    garage.send("same", model_bombs.of_the_shape_that_it_is_told(), "cpu", told=(0, 0))
    await garage.answered("same")
    worker = garage.worker("cpu")
    garage.send("other", model_bombs.of_the_shape_that_it_is_told(), "cpu", told=(2, 2))
    assert code_of(await garage.ended("other")) is Reason.INFERENCE_FAILED
    garage.send("none", model_bombs.of_the_shape_that_it_is_told(), "cpu", told=(5, 5))
    assert code_of(await garage.ended("none")) is Reason.INFERENCE_FAILED
    assert garage.worker("cpu") == worker
    await garage.cpu_goes_on()
