"""A fleet backend that can be killed at any moment: `python chaos_fleet.py PORT ANSWERS TASKS`.

Every piece of an answer is a line of the file ANSWERS: task, first row, row behind the last, bytes in
hexadecimal. After a restart it asks for the rows that are not in there.
"""

import asyncio
import os
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path

from wire_fleet import NULL_SHA256

from agent.link import LinkOptions, Retry
from agent.protocol.messages import Datatype, ModelFormat, ModelRef
from fleet.client import FleetClient, Input, Patience, Vehicle
from fleet.coverage import Coverage

NULL = ModelRef("null", "1", NULL_SHA256, ModelFormat.ONNX)
ROWS = 8
ROW = struct.Struct("<HH")
"""Which task and which row: the null model gives it back."""
START = "start"
ATTEMPTS_A_START = 1_000
QUICK = Patience(
    lease_margin_s=0.3, reboot_grace_s=0.5, first_word_s=0.3, retry_first_s=0.05, retry_cap_s=1.0
)
LEASE_S = 3.0


@dataclass(frozen=True)
class Piece:
    task: int
    begin: int
    end: int
    data: bytes


@dataclass
class Answers:
    """The file of answers, which outlives every process. `read` goes on where it ended, with whole lines."""

    path: Path
    pieces: list[Piece] = field(default_factory=list)
    starts: int = 0
    _read: int = 0

    def read(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):  # a write is seen page by page
                    return
                self._read += len(line)
                self._note(line.decode().split())

    def _note(self, words: list[str]) -> None:
        if words == [START]:
            self.starts += 1
            return
        task, begin, end, data = words
        self.pieces.append(Piece(int(task), int(begin), int(end), bytes.fromhex(data)))

    def cut_torn(self) -> None:
        """A kill in the middle of a write leaves the part of a line that filled a page."""
        self.read()
        os.truncate(self.path, self._read)

    def append(self, *words: object) -> None:
        with self.path.open("ab", buffering=0) as file:
            file.write(" ".join(map(str, words)).encode() + b"\n")

    @property
    def rows(self) -> int:
        return sum(piece.end - piece.begin for piece in self.pieces)

    def coverage(self, tasks: int) -> list[Coverage]:
        """What every task still lacks."""
        found = [Coverage(0, ROWS) for _ in range(tasks)]
        for piece in self.pieces:
            found[piece.task].take(piece.begin, piece.end)
        return found


def inputs(task: int) -> Input:
    data = b"".join(ROW.pack(task, row) for row in range(ROWS))
    return Input("x", Datatype.UINT8, [ROWS, ROW.size], data)


async def ask(vehicle: Vehicle, answers: Answers, task: int, lacks: Coverage, attempt: int) -> None:
    offer = vehicle.offer(
        NULL, [inputs(task)], id=f"task-{task}", attempt=attempt, rows=lacks.hull, lease_s=LEASE_S
    )
    async for rows in offer:
        for begin, end in lacks.take(rows.begin, rows.end):
            answers.append(task, begin, end, rows.cut(begin, end).outputs["x"].data.hex())


async def serve(port: int, answers: Answers, tasks: int) -> None:
    """Ask for everything, then go on confirming until killed."""
    answers.cut_torn()
    answers.append(START)
    attempt = 1 + answers.starts * ATTEMPTS_A_START
    options = LinkOptions(host="127.0.0.1", port=port, client_id="chaos-fleet")
    async with FleetClient(options, patience=QUICK, retry=Retry(cap_s=0.2)) as fleet:
        vehicle = fleet.vehicle("veh-1", "BR")
        async with asyncio.TaskGroup() as asking:
            for task, lacks in enumerate(answers.coverage(tasks)):
                if lacks.missing:
                    asking.create_task(ask(vehicle, answers, task, lacks, attempt))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Answers(Path(sys.argv[2])), int(sys.argv[3])))
