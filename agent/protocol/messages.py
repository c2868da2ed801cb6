"""The messages of the wire contract. Unknown fields are ignored, unknown enum values are refused.

Times are RFC 3339 UTC. A tensor is the Open Inference Protocol's (KServe v2), with its binary extension.
What a type cannot say is checked where a message is made, so it holds on both ends of the wire.
"""

import datetime as dt
import enum
from typing import Annotated, Any, Literal, Self

import msgspec

from agent.protocol.reasons import Reason, printable

REASON_MAX_CHARS = 2_000
"""Of the text of a reason: a runtime's own words about a model are long."""

# Python's `$` also matches before a final newline, so these end with `\Z`; the JSON Schemas say `$`.
Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
"""A task, vehicle or key id."""
Region = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?\Z")]
"""ISO 3166-1 alpha-2, or alpha-2 and subdivision."""
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Time = Annotated[dt.datetime, msgspec.Meta(tz=True, extra_json_schema={"pattern": "(Z|[+-]00:00)$"})]
Attempt = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Up to what every JSON reader holds exactly."""
Dimension = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Name = Annotated[str, msgspec.Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]
"""Text for people and logs: without control characters, so without terminal escapes."""
ReasonName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": [reason.label for reason in Reason]})]
Traceparent = Annotated[
    str, msgspec.Meta(pattern=r"^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
]
"""W3C Trace Context, version 00."""
Row = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
RowRange = tuple[Row, Row]
"""Half-open `[from, to)`."""


def check_utc(field: str, time: dt.datetime | None) -> None:
    """Raise ValueError unless `time` is absent or says that it is UTC: the contract knows no other zone."""
    if time is not None and time.utcoffset() != dt.timedelta(0):
        raise ValueError(f"`{field}` should be in UTC and say so, not {time.isoformat()}")


def check_name(code: Reason, name: str) -> None:
    """Raise ValueError unless `name` is the one that belongs to `code`."""
    if name != code.label:
        raise ValueError(f"reason {code.value} has the name `{code.label}`, not {name!r}")


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
    """The life of a task; `rejected` and the last six are final."""

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

    binary_data_size: Count | None = None
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


class Carried(msgspec.Struct, omit_defaults=True):
    """What of a task's `parameters` comes back with its events and results: a valid `traceparent`, as version 00."""

    traceparent: Traceparent | None = None


class Task(msgspec.Struct, omit_defaults=True):
    """A unit of leased work. (id, attempt) is its identity; the attempt is the fencing number.

    `parameters` are the fleet's own; `traceparent` among them (W3C Trace Context) comes back, a malformed one does not.
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

    def __post_init__(self) -> None:
        """Raise ValueError for what no agent could run."""
        check_utc("issued_at", self.issued_at)
        check_utc("expires_at", self.expires_at)
        if (self.inputs_url is None) != (self.inputs_sha256 is None):
            raise ValueError("`inputs_url` and `inputs_sha256` go together: give both or none")
        if len({output.name for output in self.outputs}) < len(self.outputs):
            raise ValueError("`outputs` names the same output twice")


class ReasonInfo(msgspec.Struct, omit_defaults=True):
    """Why, for programs (code) and people (text).

    A text may quote a model, a driver or the other side: on both ends of the wire it is cut and escaped.
    """

    code: Reason
    name: ReasonName
    text: str = ""
    resume_at: Time | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where code and name disagree."""
        check_name(self.code, self.name)
        check_utc("resume_at", self.resume_at)
        self.text = printable(self.text, REASON_MAX_CHARS)

    @classmethod
    def of(cls, code: Reason, text: str = "", resume_at: dt.datetime | None = None) -> Self:
        """The reason with the name that belongs to its code."""
        return cls(code, code.label, text, resume_at)


class Event(msgspec.Struct):
    """What happened to a task."""

    id: Id
    attempt: Attempt
    state: TaskState
    at: Time
    boot: Count
    seq: Count
    rows_done: Row
    rows_total: Row
    reason: ReasonInfo | None = None
    parameters: Carried | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        """Raise ValueError for a time that is not UTC."""
        check_utc("at", self.at)


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
    parameters: Carried | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        """Raise ValueError for an empty range of rows."""
        if self.rows[0] >= self.rows[1]:
            raise ValueError(f"`rows` should be [from, to) with from < to, not {list(self.rows)}")


class Blocker(msgspec.Struct):
    """A condition that does not allow work now."""

    code: Reason
    name: ReasonName
    value: float | str | bool | None
    limit: float | str | None
    since: Time

    def __post_init__(self) -> None:
        """Raise ValueError where code and name disagree, and for a time that is not UTC."""
        check_name(self.code, self.name)
        check_utc("since", self.since)


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
    rows_done: Row


class State(msgspec.Struct):
    """The vehicle's retained state."""

    vehicle: Id
    region: Region
    boot: Count
    seq: Count
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

    def __post_init__(self) -> None:
        """Raise ValueError for a time that is not UTC."""
        check_utc("at", self.at)


class Offline(msgspec.Struct):
    """The Will, or a clean good-bye. The death of another boot is ignored."""

    vehicle: Id
    boot: Count
    online: Literal[False] = False


class Cancel(msgspec.Struct, tag_field="type", tag="cancel"):
    """End a task."""

    audience: Id
    issued_at: Time
    id: Id
    attempt: Attempt

    def __post_init__(self) -> None:
        """Raise ValueError for a time that is not UTC."""
        check_utc("issued_at", self.issued_at)


class Drain(msgspec.Struct, tag_field="type", tag="drain"):
    """Take no more work and give back what is open, until `resume`; survives restarts."""

    audience: Id
    issued_at: Time

    def __post_init__(self) -> None:
        """Raise ValueError for a time that is not UTC."""
        check_utc("issued_at", self.issued_at)


class Resume(msgspec.Struct, tag_field="type", tag="resume"):
    """End a drain. Of drain and resume the newest `issued_at` holds."""

    audience: Id
    issued_at: Time

    def __post_init__(self) -> None:
        """Raise ValueError for a time that is not UTC."""
        check_utc("issued_at", self.issued_at)


class Settled(msgspec.Struct, tag_field="type", tag="settled"):
    """The fleet has these results (id, attempt, from, to); the agent may forget them."""

    audience: Id
    issued_at: Time
    results: Annotated[list[tuple[Id, Attempt, Row, Row]], msgspec.Meta(max_length=10_000)]

    def __post_init__(self) -> None:
        """Raise ValueError for a time that is not UTC."""
        check_utc("issued_at", self.issued_at)


Control = Cancel | Drain | Resume | Settled
