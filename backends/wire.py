"""What supervisor and worker say to each other: one message a packet, on two SOCK_SEQPACKET pairs.

Requests and replies travel on the first. The second carries only cancels, so that one of them reaches a
worker whose main thread is inside a run. Tensors never travel here: they lie in the arena (backends.slots).
The end of the first socket asks the worker to finish and leave, the end of the second to die at once.
"""

from typing import Any, Final, Literal

import msgspec

from backends.kernel import Cost, Device, Tensor
from backends.limits import Limit, Limits

MESSAGE_BYTES: Final = 192 * 1024
"""No message is larger: a Unix socket's packet has to fit its send buffer (208 KiB by default)."""
TEXT_CHARACTERS: Final = 4096
"""Longer error texts are cut."""


class Message(msgspec.Struct, array_like=True, tag=True):
    """A tagged array on the wire."""


class Configure(Message):
    """The first message: validated options of the backend, and its bounds. It has no reply."""

    options: dict[str, Any]
    limits: Limits


class Probe(Message):  # noqa: D101 - the method of the kernel interface
    id: int


class Load(Message):
    """`device` None means the first usable one. After `patience_s` seconds it counts as hung."""

    id: int
    path: str
    sha256: str
    format: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    known: Cost | None
    device: str | None
    patience_s: float


class Run(Message):
    """Run `rows` rows that lie at `offset` in the arena. After `patience_s` seconds it counts as hung."""

    id: int
    program: int
    rows: int
    offset: int
    patience_s: float


class Unload(Message):
    """Close a program."""

    id: int
    program: int


class Cancel(Message):
    """Give up run `id`, under way or still waiting. It has no reply of its own."""

    id: int


class Probed(Message):  # noqa: D101
    id: int
    version: str
    devices: tuple[Device, ...]
    limits: tuple[Limit, ...]


class Loaded(Message):
    """The program's key is the id of its load."""

    id: int
    version: str
    device: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int | None
    cost: Cost


class Ran(Message):
    """The outputs lie in the arena; `cpu_s` is processor time of the whole worker during the run."""

    id: int
    begin_ns: int
    end_ns: int
    joules: float | None
    joules_source: Literal["counter", "model"]
    cpu_s: float


class Unloaded(Message):  # noqa: D101
    id: int


class Cancelled(Message):
    """The run was given up."""

    id: int


class Failed(Message):
    """A KernelError."""

    id: int
    code: int
    text: str


Request = Probe | Load | Run | Unload
Reply = Probed | Loaded | Ran | Unloaded | Cancelled | Failed
