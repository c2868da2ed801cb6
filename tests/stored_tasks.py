"""A store that an agent has worked with: results on their way, ends to tell, open tasks; and ways to break its file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from offers import NOW, offer

from agent.protocol import framing
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
from agent.store import Ledger, Store

MAX_BYTES = 50_000_000
PAGE_BYTES = 4096
ROWS = 8
NO_USAGE = Usage(0.0, 0.0, None, EnergySource.NONE, None, "null", "null")


def task_body(task_id: str) -> bytes:
    """Some KB that belong to this task alone."""
    return hashlib.shake_256(task_id.encode()).digest(6_000)


def result_body(task_id: str, rows: tuple[int, int] = (0, ROWS)) -> bytes:
    """A result message of some KB; its bytes say whose they are."""
    raw = hashlib.shake_256(f"{task_id} {rows}".encode()).digest(9_000)
    outputs = [Tensor("y", Datatype.UINT8, [len(raw)], TensorParameters(binary_data_size=len(raw)))]
    final = rows[1] == ROWS
    return framing.encode(Result(task_id, 1, "m", "1", rows, final, outputs, NO_USAGE), [raw])


def work(ledger: Ledger, names: Sequence[str]) -> None:
    """Four kinds of tasks in turn: answered, failed and not told, half done, and just accepted."""
    for number, name in enumerate(names):
        ledger.accept(offer(name, body=task_body(name), rows=(0, ROWS)))
        match number % 4:
            case 0:
                ledger.emit(name, 1, 0, ROWS, result_body(name), final=True)
            case 1:
                ledger.set_state(name, 1, TaskState.FAILED, Reason.INFERENCE_FAILED, "no", at=NOW)
            case 2:
                ledger.emit(name, 1, 0, 4, result_body(name, (0, 4)), final=False)
            case _:
                pass
    ledger.facts.raise_time_floor(NOW)
    ledger.facts.drain("drain", NOW)
    ledger.notes.write("costs", b"known")


async def worked(path: Path, names: Sequence[str]) -> int:
    """Make such a store; returns the boot that it was made in."""
    async with Store.open(path, max_bytes=MAX_BYTES) as store:
        await store.run(lambda ledger: work(ledger, names))
        return store.boot


def overwrite(path: Path, pages: Sequence[int]) -> None:
    """Break whole pages, numbered from 0, as a worn-out flash chip does."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * PAGE_BYTES)
            file.write(b"\xa5" * PAGE_BYTES)


def pages_of(path: Path, content: bytes) -> list[int]:
    """The pages that hold these bytes, or have held them before they were moved."""
    raw = path.read_bytes()
    found = range(0, len(raw), PAGE_BYTES)
    return [begin // PAGE_BYTES for begin in found if content in raw[begin : begin + PAGE_BYTES]]


def pages(path: Path) -> int:
    return path.stat().st_size // PAGE_BYTES


def owed(ledger: Ledger) -> dict[tuple[str, int, int], bytes]:
    """The results that are not settled, with their bytes."""
    return {
        (result.id, result.row_from, result.row_to): ledger.result_body(result.key) or b""
        for result in ledger.unsettled(0, 1_000_000)
    }
