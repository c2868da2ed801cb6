"""A backend that takes few rows at a time, as models of fixed batch are; workers find it through PYTHONPATH."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from backends.kernel import INFERENCE_FAILED, KernelError, Model, Spent
from backends.null import Null, NullProgram

BAD = 66


class FewProgram(NullProgram):
    """Fails for a row that begins with `BAD`; counts a joule a run, and says in each row how many it came with."""

    max_batch: int | None = 3

    def run(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Spent:
        spent = super().run(inputs, outputs)
        for name, output in outputs.items():
            if (inputs[name][:, 0] == BAD).any():
                raise KernelError(INFERENCE_FAILED, "a bad row")
            output[:, -1] = len(output)
        return replace(spent, joules=1.0)


class Few(Null):
    """Three rows at a time."""

    program: ClassVar[type[FewProgram]] = FewProgram

    def load(self, model: Model, device: str) -> FewProgram:
        del device
        return self.program(model, self._options.run_us)


class OneProgram(FewProgram):
    max_batch: int | None = 1


class One(Few):
    """Row by row."""

    program = OneProgram


class EchoProgram(NullProgram):
    max_batch: int | None = 1


class Echo(Null):
    """Row by row, and nothing else."""

    def load(self, model: Model, device: str) -> EchoProgram:
        del device
        return EchoProgram(model, self._options.run_us)
