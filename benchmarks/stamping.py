"""A backend that does nothing but stamp the clock into a shared file: its last stamp tells when it was stopped."""

import mmap
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Final, Self

from pydantic import BaseModel, Field

from backends.kernel import BACKEND_UNUSABLE, Cancelled, Device, KernelError, Model, Spent
from backends.null import Null, NullOptions, NullProgram
from firmware_shims.clock import boottime_ns

if TYPE_CHECKING:
    from backends.kernel import Array

USE: Final = "benchmarks.stamping:Stamping"
STAMP_BYTES: Final = 8


class StampingOptions(NullOptions):
    """`[backends.options]` of the stamping backend."""

    stamps: Path = Field(
        description="a file of 8 bytes, which takes the boot-time nanoseconds of now, all the time"
    )


class Stamps:
    """Both sides' view of the file; it is made where it is missing."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(STAMP_BYTES)
            self._memory = mmap.mmap(file.fileno(), STAMP_BYTES)
        self.words = memoryview(self._memory).cast("Q")
        """One: the last stamp."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.words.release()
        self._memory.close()


class StampingProgram(NullProgram):
    """A run that stamps for `run_us`, and then echoes."""

    def __init__(self, model: Model, run_us: int, words: memoryview) -> None:
        super().__init__(model, run_us=0)
        self._length_ns = run_us * 1000
        self._words = words
        self._given_up = threading.Event()

    def run(self, inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]") -> Spent:  # noqa: D102
        self._given_up.clear()
        words, given_up = self._words, self._given_up.is_set
        begin_ns = now_ns = boottime_ns()
        end_ns = begin_ns + self._length_ns
        while now_ns < end_ns:
            words[0] = now_ns = boottime_ns()
            if given_up():
                raise Cancelled
        super().run(inputs, outputs)
        return Spent(begin_ns, boottime_ns())

    def cancel(self) -> None:  # noqa: D102
        self._given_up.set()


class Stamping(Null):
    """One device, whose runs keep a processor busy."""

    name: ClassVar[str] = "stamping"
    Options: ClassVar[type[BaseModel]] = StampingOptions

    def __init__(self, options: StampingOptions) -> None:
        super().__init__(options)
        self._path, self._run_us = options.stamps, options.run_us
        self._stamps: Stamps | None = None

    def probe(self) -> Sequence[Device]:
        """Open the file: once a worker is confined it could not."""
        self._stamps = Stamps(self._path)
        return super().probe()

    def load(self, model: Model, device: str) -> StampingProgram:  # noqa: D102
        self.refuse_others(device)
        if self._stamps is None:
            raise KernelError(BACKEND_UNUSABLE, "stamping has no file yet: probe it first")
        return StampingProgram(model, self._run_us, self._stamps.words)
