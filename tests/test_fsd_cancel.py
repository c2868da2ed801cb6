"""A cancel of the fsd backend ends the run that it was meant for, and no other."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from backends.kernel import Tensor
from firmware_shims.fsd.interface import Completion

np = pytest.importorskip("numpy", reason="needs numpy, pip install 'parkwatt[fsd]'")
from backends.fsd_program import FsdProgram  # noqa: E402 - after the skip

if TYPE_CHECKING:
    from backends.fsd_parts import Tensors

A_MOMENT_S = 0.2
WITHIN_S = 30


class SlowToAbort:
    """A part whose abort takes until it is let go on; `calls` has what was done, in its order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.aborting = threading.Event()
        self.go_on = threading.Event()

    def run(self, tensors: "Tensors", rows: int, given_up: threading.Event) -> Sequence[Completion]:
        del rows, given_up
        self.calls.append("run")
        tensors["y"] = tensors["x"]
        return []

    def abort(self) -> None:
        self.aborting.set()
        assert self.go_on.wait(WITHIN_S)
        self.calls.append("aborted")

    def close(self) -> None:
        pass


def test_a_run_that_comes_in_the_middle_of_a_cancel_is_not_aborted_by_its_end() -> None:
    part = SlowToAbort()
    x = (Tensor("x", "INT8", (4,)),)
    program = FsdProgram(None, x, ["y"], [part], energy_source="none", owner=None)
    given, taken = {"x": np.ones((1, 4), np.int8)}, {"y": np.zeros((1, 4), np.int8)}
    cancel = threading.Thread(target=program.cancel)
    run = threading.Thread(target=program.run, args=(given, taken))
    cancel.start()
    assert part.aborting.wait(WITHIN_S)
    run.start()
    run.join(A_MOMENT_S)
    part.go_on.set()
    for thread in (cancel, run):
        thread.join(WITHIN_S)
    assert part.calls == ["aborted", "run"]
    assert taken["y"].tolist() == [[1, 1, 1, 1]]
