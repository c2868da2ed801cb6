"""What a fuzzer holds the wire contract against: nothing but `Refused` comes out, and what is taken is taken exactly.

A target takes any bytes and returns for those that are taken. It raises `Refused` for the others, and AssertionError,
or whatever escaped, where a promise is broken.
"""

import functools
import math
import struct
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from nacl.signing import SigningKey

from agent.admission import Circumstances, admit
from agent.inputs import carried
from agent.protocol import examples, framing, jws, tensors
from agent.protocol.messages import Datatype, EnergySource, Tensor
from agent.protocol.reasons import Refused
from agent.settings import Settings

KEY: Final = SigningKey(bytes(range(32)))
KID: Final = "fleet"
VERIFIER: Final = jws.Verifier({KID: bytes(KEY.verify_key)})
MODEL: Final = examples.TASK.model
CPU_S: Final = 1.0
"""A thousand times what an input of 4 KiB takes, and less than what would be quadratic in it or worse."""
BYTES_PER_BYTE: Final = 100
BYTES: Final = 1 << 20


@functools.cache
def car() -> Circumstances:
    """A car that takes a task now, if nothing is wrong with the task itself."""
    settings = Settings.model_validate(
        {
            "vehicle": {"id": examples.TASK.audience, "region": "BR-SP"},
            "signals": [{"shim": "scenario"}],
            "backends": [{"use": "null", "max_power_w": 60}],
            "inputs": {"hosts": ["example.org"]},
        }
    )
    return Circumstances(
        settings=settings,
        energy_source=EnergySource.NONE,
        now=examples.ISSUED_AT,
        open_tasks=1,
        open_bytes=1,
        open_remote_bytes=1,
        queued_s=1.0,
        task_bytes=1,
        task_remote_bytes=0,
        row_s=None,
        stays_for=lambda _: None,
        kills_workers=False,
    )


def task(data: bytes) -> None:
    """A task: it comes back as it was sent, with its rows and its tensors, and is admitted or not."""
    message, tail = framing.decode_task(data)
    assert framing.decode_task(framing.encode(message, [tail])) == (message, tail)
    begin, end, total = tensors.rows_of(message)
    assert 0 <= begin < end <= total
    if raws := carried(message, tail):
        _tensors(message.inputs, raws)
    admit(message, car())


def result(data: bytes) -> None:
    """A result: as a task."""
    message, tail = framing.decode_result(data)
    assert framing.decode_result(framing.encode(message, [tail])) == (message, tail)
    assert message.rows[0] < message.rows[1]
    _tensors(message.outputs, tensors.unpack(message.outputs, tail))


def signed(data: bytes) -> None:
    """A signed message: the one line that the key makes for these bytes, or none of ours."""
    line, body = jws.split(data)
    if line is None:
        assert data == body
        return
    assert VERIFIER.verify(line, body) == KID
    assert jws.sign(body, KEY, KID) == data
    framing.decode_control(body)


def _plain(decode: Callable[[bytes], msgspec.Struct]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        message = decode(data)
        assert decode(framing.encode(message)) == message

    return target


def _tensors(described: Sequence[Tensor], raws: Sequence[memoryview]) -> None:
    """Each has the bytes of its shape, and says the same in JSON where JSON can say it."""
    for tensor, raw in zip(described, raws, strict=True):
        assert len(raw) == tensors.nbytes(tensor)
        if tensor.datatype is Datatype.FP16 or _has_no_number(tensor, raw):
            continue
        said = Tensor(
            tensor.name,
            tensor.datatype,
            tensor.shape,
            data=tensors.to_json(tensor.datatype, tensor.shape, raw),
        )
        wire = msgspec.json.decode(msgspec.json.encode(said), type=Tensor)
        assert bytes(tensors._pack(wire)) == bytes(raw)


def _has_no_number(tensor: Tensor, raw: memoryview) -> bool:
    if tensor.datatype not in tensors.FLOATS:
        return False
    items = struct.iter_unpack("<" + tensors.STRUCT_CODE[tensor.datatype], raw)
    return not all(math.isfinite(item) for (item,) in items)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "task": task,
    "result": result,
    "signed": signed,
    "control": _plain(framing.decode_control),
    "event": _plain(framing.decode_event),
    "state": _plain(framing.decode_state),
}

WITH_A_URL: Final = msgspec.structs.replace(
    examples.TASK, inputs_url="https://example.org/x", inputs_sha256=MODEL.sha256, backend="null", rows=(0, 1)
)
SEEDS: Final[dict[str, tuple[bytes, ...]]] = {
    "task": (
        framing.encode(examples.TASK, [examples.TASK_TAIL]),
        framing.encode(examples.TASK_IN_JSON),
        framing.encode(WITH_A_URL),
    ),
    "result": (framing.encode(examples.RESULT, [bytes(8)]),),
    "signed": tuple(
        jws.sign(framing.encode(message), KEY, KID) for message in (examples.CANCEL, examples.DRAIN)
    ),
    "control": tuple(
        framing.encode(message)
        for message in (examples.CANCEL, examples.DRAIN, examples.RESUME, examples.SETTLED)
    ),
    "event": (framing.encode(examples.EVENT),),
    "state": (framing.encode(examples.STATE), framing.encode(examples.OFFLINE)),
}
CORPUS: Final = Path(__file__).with_name("corpus")


def known(name: str) -> list[bytes]:
    """Good messages, and what was worth keeping of earlier runs."""
    return [*SEEDS[name], *(path.read_bytes() for path in sorted((CORPUS / name).glob("*")))]


def tried(name: str, data: bytes) -> bool:
    """Whether the target takes `data`; raises AssertionError, or what else escaped, where a promise is broken."""
    begun_s, refusal = time.process_time(), ""
    try:
        TARGETS[name](data)
    except Refused as refused:
        refusal = str(refused)
    took_s = time.process_time() - begun_s
    assert took_s < CPU_S, f"took {took_s:.2f} s of processor time for {len(data)} bytes"
    assert refusal.isprintable()
    return not refusal


def peak_bytes(name: str, data: bytes) -> int:
    """Memory that Python's allocators gave out at most while the target ran."""
    tracemalloc.start()
    try:
        tried(name, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def assert_bounded(name: str, data: bytes) -> None:
    most = BYTES_PER_BYTE * len(data) + BYTES
    peak = peak_bytes(name, data)
    assert peak < most, f"took {peak} bytes of memory for {len(data)}"
