"""What a fleet asks for, and the task messages that ask for it."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from agent.protocol import framing, tensors
from agent.protocol.messages import (
    Datatype,
    Limits,
    ModelRef,
    RequestedOutput,
    RowRange,
    Task,
    Tensor,
    TensorParameters,
)
from agent.protocol.reasons import Reason, Refused


@dataclass(frozen=True, slots=True)
class Input:
    """An input tensor: `data` is row-major, little-endian and C-contiguous; None where it stands at a URL.

    The first dimension is the row, except where `shared`: then every row sees the whole tensor.
    """

    name: str
    datatype: Datatype
    shape: Sequence[int]
    data: bytes | memoryview | None = None
    shared: bool = False

    def described(self) -> Tensor:
        """The tensor as the message names it; its bytes follow the message, or stand at its URL."""
        tensor = Tensor(self.name, self.datatype, list(self.shape), TensorParameters(shared=self.shared))
        tensor.parameters.binary_data_size = (
            tensors.nbytes(tensor) if self.data is None else memoryview(self.data).nbytes
        )
        return tensor


@dataclass(frozen=True, slots=True)
class InputsAt:
    """Where the bytes of all inputs stand, one after the other in their order, and the SHA-256 of the whole."""

    url: str
    """`https`, of a host that the vehicles' `inputs.hosts` lists; or `file`, where `inputs.file_dirs` allows it."""
    sha256: str


class Terms(TypedDict, total=False):
    """The terms of `Vehicle.submit` and `Vehicle.offer`; `Work` says what they mean and has the defaults."""

    lease_s: float
    expires_s: float
    outputs: Sequence[str | RequestedOutput]
    rows: RowRange | None
    priority: int
    limits: Limits
    residency: Sequence[str] | None
    backend: str | None
    parameters: Mapping[str, Any]
    inputs_at: InputsAt | None


@dataclass(frozen=True, slots=True)
class Work:
    """Rows of inputs for a model, and on what terms.

    `lease_s`: how long a vehicle may be silent about it. `expires_s`: how long it may take in all, over
    every attempt, counted from the first time that it is published. `outputs`: empty for all of the model's.
    `rows`: only these of the inputs' rows. `inputs_at`: where the inputs stand that no message holds. The rest is as in the wire contract's task.
    """

    model: ModelRef
    inputs: Sequence[Input]
    lease_s: float = 60
    expires_s: float = 300
    outputs: Sequence[str | RequestedOutput] = ()
    rows: RowRange | None = None
    priority: int = 0
    limits: Limits = field(default_factory=Limits)
    residency: Sequence[str] | None = None
    backend: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs_at: InputsAt | None = None

    def task(
        self,
        task_id: str,
        attempt: int,
        audience: str,
        *,
        issued_at: dt.datetime,
        expires_at: dt.datetime,
        rows: RowRange | None = None,
    ) -> Task:
        """The task message of one attempt; `rows` are those of `Work.rows` unless given."""
        return Task(
            id=task_id,
            attempt=attempt,
            audience=audience,
            issued_at=issued_at,
            expires_at=expires_at,
            lease_s=self.lease_s,
            model=self.model,
            inputs=[tensor.described() for tensor in self.inputs],
            backend=self.backend,
            priority=self.priority,
            residency=None if self.residency is None else list(self.residency),
            limits=self.limits,
            outputs=[
                RequestedOutput(output) if isinstance(output, str) else output for output in self.outputs
            ],
            rows=rows or self.rows,
            parameters=dict(self.parameters),
            inputs_url=None if self.inputs_at is None else self.inputs_at.url,
            inputs_sha256=None if self.inputs_at is None else self.inputs_at.sha256,
        )

    def body(self, task: Task) -> bytes:
        """The bytes to publish; raises `Refused` (100, 102) for what no vehicle would take."""
        body = framing.encode(task, self.tails())
        decoded, tail = framing.decode_task(body)
        tensors.rows_of(decoded)
        if self.inputs_at is None:
            tensors.unpack(decoded.inputs, tail)
        return body

    def tails(self) -> Sequence[bytes | memoryview]:
        """What follows the message; raises `Refused` (102) where an input's bytes are missing, or in two places."""
        found = [tensor.data for tensor in self.inputs if tensor.data is not None]
        if self.inputs_at is not None and found:
            raise Refused(Reason.BAD_TENSOR, "inputs_at says where all inputs stand: give none of them data")
        if self.inputs_at is None and len(found) < len(self.inputs):
            raise Refused(Reason.BAD_TENSOR, "an input without data stands at a URL: give inputs_at")
        return found

    def rows_wanted(self) -> RowRange:
        """The rows that are asked for; raises `Refused` (102) where the inputs do not have them."""
        total = tensors.row_count([tensor.described() for tensor in self.inputs])
        return self.rows or (0, total)
