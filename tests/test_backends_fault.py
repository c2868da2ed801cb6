"""The fault backend goes wrong where and when it is told, and nowhere else."""

import pytest
from pydantic import ValidationError
from workers import BYTES

from backends.contract.trials import run, some_inputs
from backends.fault import Fault, FaultOptions
from backends.kernel import KernelError

pytest.importorskip("numpy")


def test_runs_go_well_until_the_time_has_come() -> None:
    program = Fault(FaultOptions(does="raise", after_runs=2)).load(BYTES, "null")
    inputs = some_inputs(program.inputs, 1)
    for _ in range(2):
        assert run(program, inputs, 1)["data"].tobytes() == inputs["data"].tobytes()
    with pytest.raises(ZeroDivisionError):
        run(program, inputs, 1)


def test_a_disaster_strikes_in_its_method_only() -> None:
    backend = Fault(FaultOptions(does="refuse", at="close"))
    program = backend.load(BYTES, backend.probe()[0].name)
    run(program, some_inputs(program.inputs, 1), 1)
    with pytest.raises(KernelError):
        program.close()


@pytest.mark.parametrize("does", ["nothing", "nan", "slow_cancel"])
def test_what_has_a_place_of_its_own_takes_no_other(does: str) -> None:
    with pytest.raises(ValidationError, match=f"at = 'load' goes with hang, .*, not with '{does}'"):
        FaultOptions.model_validate({"does": does, "at": "load"})
