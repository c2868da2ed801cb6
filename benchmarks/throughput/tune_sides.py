"""What tuning compares: the backend with some setting, and what one gets without deciding anything.

Each side is a process of its own for one turn, so that how its memory happens to lie is part of the spread.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.bare_runtime import Subject as BareSubject
from benchmarks.throughput.bare_side import BareSide, bare_side
from benchmarks.throughput.catalogue import Subject
from benchmarks.throughput.worker_side import BackendChoice, WorkerSide, worker_side

RUNTIMES: Final = {
    "cpu": "onnxruntime's defaults (all cores, spinning)",
    "tflite": "the TFLite runtime's defaults",
}
"""Of the backends that stand before a runtime which can be had without them."""
ITS_DEFAULT: Final = 0
"""So many threads: as many as the runtime itself takes."""


@dataclass(slots=True)
class Sides:
    """One model on one backend. `held` are options that are given and not searched; `folder` is for the samples."""

    subject: Subject
    use: str
    folder: Path
    device: str = ""
    held: Mapping[str, Any] = field(default_factory=dict)
    _arrays: Path | None = field(default=None, init=False)

    @property
    def reference(self) -> str:
        """Whose defaults `defaults` has."""
        return RUNTIMES.get(self.use, f"the defaults of {self.use}")

    def ours(self, options: Mapping[str, Any]) -> AbstractAsyncContextManager[WorkerSide]:
        """The backend with these options, in a worker; raises what `worker_side` raises."""
        choice = BackendChoice(self.use, options, self.device)
        return worker_side(self.subject.model, self.subject.samples.arrays, choice)

    def defaults(self) -> AbstractAsyncContextManager[BareSide | WorkerSide]:
        """The bare runtime as it comes, or the backend as it comes where there is no such thing."""
        if self.use not in RUNTIMES:
            return self.ours(self.held)
        model = self.subject.model
        return bare_side(
            BareSubject(
                path=str(model.path),
                format=model.format,
                inputs=model.inputs,
                arrays=str(self._kept_arrays()),
                threads=ITS_DEFAULT,
                spinning=True,
            )
        )

    def _kept_arrays(self) -> Path:
        if self._arrays is None:
            self._arrays = self.folder / f"{self.subject.entry.id}.npz"
            np.savez(self._arrays, **self.subject.samples.arrays)  # type: ignore[arg-type] # its stub forbids ** of arrays
        return self._arrays
