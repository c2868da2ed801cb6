"""Checks of what a run computes, and what it says about its time and energy."""

import math
from typing import Final

from backends.contract.subject import OWN_OUTPUT, Subject, is_own, require, right_answer
from backends.contract.trials import alike, blank_outputs, most_rows, row_of, run, same, some_inputs
from backends.kernel import Spent
from firmware_shims.clock import boottime_ns

TOLERANCE: Final = 1e-4
TOLERANCE_ALONE: Final = 1e-2
"""Wider: runtimes take other algorithms for one row than for several, and an ill-conditioned model shows it.
The file type model of the demo gives 0.005 for bytes that are all 0 or 1, 1e-7 for ordinary ones."""
MOST_W: Final = 5000.0
"""No device in a car draws more: a whole computer for driving takes 72 W to 800 W."""
LEAST_WINDOW_S: Final = 0.001
"""Shorter windows are taken as this long when joules are turned into watts: counters have steps."""
METERED_RUNS: Final = 5


def a_run_fills_every_output(subject: Subject) -> str:
    """The same inputs give the same outputs whatever lay there before, and the inputs stay as they were."""
    with subject.program() as program:
        rows = most_rows(program)
        inputs = some_inputs(program.inputs, rows)
        before = {name: array.copy() for name, array in inputs.items()}
        first, second = (run(program, inputs, rows, filling) for filling in (0x00, 0xA5))
        fix = "write every element of each output, and compute the same from the same"
        same(first, second, "a second run of the same inputs, into arrays that held something else", fix)
        same(before, inputs, "the inputs after a run", "inputs are read-only: work on a copy")
        return f"{rows} rows, twice, into {', '.join(first)}"


def the_numbers_are_right(subject: Subject) -> str:
    """The suite's own model gives what the formula of a softmax gives."""
    if not is_own(subject.model):
        return "not checked: only the suite's own model has known answers"
    with subject.program() as program:
        if [tensor.name for tensor in program.outputs] != [OWN_OUTPUT]:
            names = ", ".join(tensor.name for tensor in program.outputs)
            return f"not checked: its outputs are {names}, not the model's {OWN_OUTPUT}: it computes nothing"
        import numpy as np  # noqa: PLC0415

        rows = most_rows(program)
        inputs = some_inputs(program.inputs, rows)
        right = np.asarray([right_answer(row) for row in inputs["x"].tolist()])
        computed = run(program, inputs, rows)[OWN_OUTPUT]
        alike(
            computed, right, TOLERANCE, "softmax over eight numbers", "compare an intermediate result by hand"
        )
        return f"softmax over eight numbers, {rows} rows"


def ordinary_numbers_give_no_nan(subject: Subject) -> str:
    """A device that fails in the middle often answers NaN; for small ordinary inputs no sound model does."""
    with subject.program() as program:
        rows = most_rows(program)
        outputs = run(program, some_inputs(program.inputs, rows), rows)
        wild = [
            name
            for name, array in outputs.items()
            if array.dtype.kind == "f" and not all(map(math.isfinite, array.reshape(-1).tolist()))
        ]
        fix = "a failure is a KernelError, never a value; if the model itself does this, take another one"
        require(not wild, f"NaN or infinity in {', '.join(wild)}", fix)
        return f"{', '.join(outputs)} are finite"


def rows_do_not_see_each_other(subject: Subject) -> str:
    """Rows in another order, with other neighbours, give the same outputs in that order."""
    with subject.program() as program:
        rows = most_rows(program)
        inputs = some_inputs(program.inputs, rows)
        shared = {tensor.name for tensor in program.inputs if tensor.shared}
        turned = {name: a if name in shared else a[::-1].copy() for name, a in inputs.items()}
        batch = run(program, inputs, rows)
        fix = "if rows of this model depend on each other, set max_batch = 1 and reset its state for each run"
        for name, array in run(program, turned, rows).items():
            for row in range(rows):
                what = f"row {row} of {name!r} beside others"
                alike(array[rows - 1 - row], batch[name][row], TOLERANCE, what, fix)
        return f"{rows} rows forwards and backwards"


def a_row_alone_gives_the_same(subject: Subject) -> str:
    """A batch of rows gives what the rows give one by one, and one after another."""
    with subject.program() as program:
        rows = most_rows(program)
        inputs = some_inputs(program.inputs, max(rows, 2))
        batch = run(program, {n: a[:rows] for n, a in inputs.items()} if rows == 1 else inputs, rows)
        fix = "batches must not change results; if this model's do, set max_batch = 1"
        for row in [*range(max(rows, 2)), 0]:
            for name, array in run(program, row_of(program, inputs, row), 1).items():
                if row < rows:
                    what = f"row {row} of {name!r} alone"
                    alike(array[0], batch[name][row], TOLERANCE_ALONE, what, fix)
        return f"{rows} rows at once and one by one"


def spent_is_within_the_call(subject: Subject) -> str:
    """Stamps are CLOCK_BOOTTIME, inside the call and in order."""
    with subject.program() as program:
        inputs = some_inputs(program.inputs, 1)
        outputs = blank_outputs(program, 1, 0)
        before_ns = boottime_ns()
        spent = program.run(inputs, outputs)
        after_ns = boottime_ns()
        fix = "return Spent(begin_ns, end_ns) of firmware_shims.clock.boottime_ns around the device's work"
        require(isinstance(spent, Spent), f"run() returned {spent!r}", fix)
        within = before_ns <= spent.begin_ns <= spent.end_ns <= after_ns
        require(within, f"{spent}, called at {before_ns}, returned at {after_ns}", fix)
        return f"{(spent.end_ns - spent.begin_ns) / 1e3:.0f} of {(after_ns - before_ns) / 1e3:.0f} us"


def joules_can_be_believed(subject: Subject) -> str:
    """A device's own figure of a run is None or a number from 0 to what a car's device can draw, and says what it is."""
    with subject.program() as program:
        inputs = some_inputs(program.inputs, 1)
        outputs = blank_outputs(program, 1, 0)
        runs = [program.run(inputs, outputs) for _ in range(METERED_RUNS)]
        fix = "None where this run's joules are not known; else the difference of a counter that only grows"
        counted = [spent for spent in runs if spent.joules is not None]
        for spent in counted:
            joules = spent.joules or 0.0
            window_s = max((spent.end_ns - spent.begin_ns) / 1e9, LEAST_WINDOW_S)
            seen = f"{joules} J in {window_s:.3g} s"
            require(math.isfinite(joules) and joules >= 0, seen, fix)
            require(joules <= MOST_W * window_s, f"{seen} are {joules / window_s:.3g} W", fix)
        sources = {spent.joules_source for spent in runs}
        require(
            len(sources) == 1 and sources <= {"counter", "model"},
            f"joules_source is {', '.join(map(repr, sorted(sources)))}",
            "'counter' for what the device has counted, 'model' for what was predicted, the same in every run",
        )
        if not counted:
            return "None: the device has no figure of its own"
        joules = sum(spent.joules or 0.0 for spent in counted)
        return f"{joules:.3g} J in {len(counted)} runs, by {sources.pop()}"
