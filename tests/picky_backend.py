"""A backend that fails, or dies, when a row holds a certain value: one bad task in a batch of good ones."""

import os
from typing import TYPE_CHECKING, ClassVar

from backends.kernel import INFERENCE_FAILED, Cost, KernelError, Model, Spent
from backends.null import Null, NullProgram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backends.kernel import Array

REFUSED, DEADLY = 201, 202


class PickyProgram(NullProgram):
    def run(self, inputs: "Mapping[str, Array]", outputs: "Mapping[str, Array]") -> Spent:
        values = {int(array.max()) for array in inputs.values()}
        if DEADLY in values:
            os.abort()
        if REFUSED in values:
            raise KernelError(INFERENCE_FAILED, f"a row of {REFUSED}")
        return super().run(inputs, outputs)


class Heavy(Null):
    """Its programs say that they take 900 MB: two fit beside each other, three do not."""

    name: ClassVar[str] = "heavy"

    def load(self, model: Model, device: str) -> NullProgram:
        program = super().load(model, device)
        program.cost = Cost(run_s=program.cost.run_s, bytes_resident=900_000_000)
        return program


class Picky(Null):
    name: ClassVar[str] = "picky"

    def load(self, model: Model, device: str) -> PickyProgram:
        del device
        return PickyProgram(model, 0)
