"""The messages of the wire contract. Unknown fields are ignored, unknown enum values are refused.

Times are RFC 3339 UTC. A tensor is the Open Inference Protocol's (KServe v2), with its binary extension.
"""

import datetime as dt
import enum
from typing import Annotated, Any, Literal

import msgspec

from agent.protocol.reasons import Reason

Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""A task, vehicle or key id."""
Region = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
"""ISO 3166-1 alpha-2, or alpha-2 and subdivision."""
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[dt.datetime, msgspec.Meta(tz=True)]
Attempt = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Dimension = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
RowRange = tuple[Annotated[int, msgspec.Meta(ge=0, le=2**31)], Annotated[int, msgspec.Meta(ge=0, le=2**31)]]
"""Half-open `[from, to)`."""


class Datatype(enum.Enum):
    """Open Inference Protocol datatypes of fixed size."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"


class TaskState(enum.Enum):
    """The life of a task; the last six are final."""

    REJECTED = "rejected"
    ACCEPTED = "accepted"
    RUNNING = "running"
    PREEMPTED = "preempted"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    RELEASED = "released"
    SUPERSEDED = "superseded"

    @property
    def is_open(self) -> bool:
        """Whether the agent still owes work for it."""
        return self in OPEN_STATES


OPEN_STATES = frozenset({TaskState.ACCEPTED, TaskState.RUNNING, TaskState.PREEMPTED})


class Mode(enum.Enum):
    """What the agent as a whole does."""

    BLOCKED = "blocked"
    SETTLING = "settling"
    READY = "ready"
    WORKING = "working"
    PREEMPTING = "preempting"
    DRAINING = "draining"


class EnergySource(enum.Enum):
    """Where joules come from. A model is never a measurement."""

    COUNTER = "counter"
    INTEGRATED = "integrated"
    MODEL = "model"
    NONE = "none"


class TensorParameters(msgspec.Struct, omit_defaults=True):
    """`binary_data_size`: bytes in the tail. `shared`: given whole to every row, it has no row dimension."""

    binary_data_size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    shared: bool = False


class Tensor(msgspec.Struct, omit_defaults=True):
    """One tensor: in the binary tail when `binary_data_size` is set, else in `data` (nested or flat, row-major)."""

    name: Name
    datatype: Datatype
    shape: Annotated[list[Dimension], msgspec.Meta(max_length=8)]
    parameters: TensorParameters = msgspec.field(default_factory=TensorParameters)
    data: list[Any] | None = None


class OutputParameters(msgspec.Struct, omit_defaults=True):
    """`binary_data = false` asks for the tensor as `data` in the JSON."""

    binary_data: bool = True


class RequestedOutput(msgspec.Struct, omit_defaults=True):
    """An output that the fleet wants back."""

    name: Name
    parameters: OutputParameters = msgspec.field(default_factory=OutputParameters)


class ModelFormat(enum.Enum):
    """Model file formats."""

    ONNX = "onnx"
    TFLITE = "tflite"


class ModelRef(msgspec.Struct):
    """A model by the hash of its bytes; name and version are for people."""

    name: Name
    version: Name
    sha256: Sha256
    format: ModelFormat


class Limits(msgspec.Struct, omit_defaults=True):
    """What a task may use at most: seconds of running and active joules."""

    runtime_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    energy_j: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Task(msgspec.Struct, omit_defaults=True):
    """A unit of leased work. (id, attempt) is its identity; the attempt is the fencing number.

    `rows` limits the work to `[from, to)`; `outputs` empty means every output of the model.
    """

    id: Id
    attempt: Attempt
    audience: Id
    issued_at: Time
    expires_at: Time
    lease_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)]
    model: ModelRef
    inputs: Annotated[list[Tensor], msgspec.Meta(min_length=1, max_length=64)]
    backend: Name | None = None
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] = 0
    residency: Annotated[list[Region], msgspec.Meta(max_length=64)] | None = None
    limits: Limits = msgspec.field(default_factory=Limits)
    inputs_url: Annotated[str, msgspec.Meta(max_length=4096)] | None = None
    inputs_sha256: Sha256 | None = None
    outputs: Annotated[list[RequestedOutput], msgspec.Meta(max_length=64)] = msgspec.field(
        default_factory=list
    )
    rows: RowRange | None = None
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)


class ReasonInfo(msgspec.Struct, omit_defaults=True):
    """Why, for programs (code) and people (text)."""

    code: Reason
    name: str
    text: str = ""
    resume_at: Time | None = None


class Event(msgspec.Struct):
    """What happened to a task."""

    id: Id
    attempt: Attempt
    state: TaskState
    at: Time
    boot: int
    seq: int
    rows_done: int
    rows_total: int
    reason: ReasonInfo | None = None


class Usage(msgspec.Struct):
    """What rows cost. `energy_j` is active energy; without a meter every joule field is null."""

    wall_s: float
    device_s: float
    energy_j: float | None
    energy_source: EnergySource
    idle_j: float | None
    backend: str
    device: str
    grid_j: float | None = None
    pack_j: float | None = None


class Result(msgspec.Struct):
    """Result rows `[from, to)` with their tensors in order; rows of one result never overlap another's."""

    id: Id
    attempt: Attempt
    model_name: str
    model_version: str
    rows: RowRange
    final: bool
    outputs: list[Tensor]
    usage: Usage


class Blocker(msgspec.Struct):
    """A condition that does not allow work now."""

    code: Reason
    name: str
    value: float | str | bool | None
    limit: float | str | None
    since: Time


class BackendState(msgspec.Struct):
    """One backend as the fleet sees it."""

    name: str
    device: str
    formats: list[str]
    power_w: float
    cancel_bound_ms: float | None
    usable: bool
    why: str = ""


class OpenTask(msgspec.Struct):
    """A task that the agent still owes."""

    id: Id
    attempt: Attempt
    state: TaskState
    rows_done: int


class State(msgspec.Struct, omit_defaults=True):
    """The vehicle's retained state."""

    vehicle: Id
    region: Region
    boot: int
    seq: int
    online: Literal[True]
    at: Time
    mode: Mode
    blockers: list[Blocker]
    budget_w: float
    expected_s: float | None
    backends: list[BackendState]
    models: list[Sha256]
    open: list[OpenTask]
    version: str


class Offline(msgspec.Struct):
    """The Will, or a clean good-bye. The death of another boot is ignored."""

    vehicle: Id
    boot: int
    online: Literal[False] = False


class Cancel(msgspec.Struct, tag_field="type", tag="cancel"):
    """End a task."""

    audience: Id
    issued_at: Time
    id: Id
    attempt: Attempt


class Drain(msgspec.Struct, tag_field="type", tag="drain"):
    """Take no more work and give back what is open, until `resume`; survives restarts."""

    audience: Id
    issued_at: Time


class Resume(msgspec.Struct, tag_field="type", tag="resume"):
    """End a drain. Of drain and resume the newest `issued_at` holds."""

    audience: Id
    issued_at: Time


class Settled(msgspec.Struct, tag_field="type", tag="settled"):
    """The fleet has these results (id, attempt, from, to); the agent may forget them."""

    audience: Id
    issued_at: Time
    results: Annotated[list[tuple[Id, Attempt, int, int]], msgspec.Meta(max_length=10_000)]


Control = Cancel | Drain | Resume | Settled
