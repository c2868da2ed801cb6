"""What a task and its result cost on the wire: JSON, framing, signature."""

from typing import Final

import msgspec
import pytest
from msgspec.structs import replace
from nacl.signing import SigningKey
from pytest_benchmark.fixture import BenchmarkFixture

from agent.protocol import examples, framing, jws, strict_json
from agent.protocol.messages import Datatype, Result, Task, Tensor, TensorParameters

KEY: Final = SigningKey(bytes(32))
VERIFIER: Final = jws.Verifier({"bench": bytes(KEY.verify_key)})
PAYLOADS: Final = pytest.mark.parametrize("payload_bytes", [1024, 65_536], ids=["1 KB", "64 KB"])


def task_of(payload_bytes: int) -> tuple[Task, bytes]:
    """A task of eight rows with one binary input."""
    shape = [8, payload_bytes // 8]
    tensor = Tensor("bytes", Datatype.UINT8, shape, TensorParameters(binary_data_size=payload_bytes))
    return replace(examples.TASK, inputs=[tensor]), bytes(payload_bytes)


def result_of(payload_bytes: int) -> tuple[Result, bytes]:
    """A result of eight rows with one binary output."""
    shape = [8, payload_bytes // 8]
    tensor = Tensor("scores", Datatype.UINT8, shape, TensorParameters(binary_data_size=payload_bytes))
    return replace(examples.RESULT, rows=(0, 8), outputs=[tensor]), bytes(payload_bytes)


@PAYLOADS
def bench_encode_a_task(benchmark: BenchmarkFixture, payload_bytes: int) -> None:
    """Message to body, on the fleet's side."""
    task, tail = task_of(payload_bytes)
    benchmark(framing.encode, task, [tail])


@PAYLOADS
def bench_decode_a_task(benchmark: BenchmarkFixture, payload_bytes: int) -> None:
    """Body to checked message; the binary input is a view, so its size should not matter."""
    task, tail = task_of(payload_bytes)
    benchmark(framing.decode_task, framing.encode(task, [tail]))


@PAYLOADS
def bench_encode_a_result(benchmark: BenchmarkFixture, payload_bytes: int) -> None:
    """Message to body, in the car."""
    result, tail = result_of(payload_bytes)
    benchmark(framing.encode, result, [tail])


@PAYLOADS
def bench_decode_a_result(benchmark: BenchmarkFixture, payload_bytes: int) -> None:
    """Body to checked message, on the fleet's side."""
    result, tail = result_of(payload_bytes)
    benchmark(framing.decode_result, framing.encode(result, [tail]))


@PAYLOADS
def bench_verify_a_signature(benchmark: BenchmarkFixture, payload_bytes: int) -> None:
    """The first thing that happens to a task, before anything of it is parsed."""
    task, tail = task_of(payload_bytes)
    line, body = jws.split(jws.sign(framing.encode(task, [tail]), KEY, "bench"))
    assert line is not None
    benchmark(VERIFIER.verify, line, body)


def bench_strict_json_of_a_task(benchmark: BenchmarkFixture) -> None:
    """With the second pass that refuses a member that stands twice."""
    benchmark(strict_json.decode, msgspec.json.Decoder(Task), msgspec.json.encode(examples.TASK))


def bench_plain_json_of_a_task(benchmark: BenchmarkFixture) -> None:
    """Without that pass: the reference beside it."""
    benchmark(msgspec.json.Decoder(Task).decode, msgspec.json.encode(examples.TASK))
