"""Checks of cancel: from another thread, any number of times, at once, and without harm to the next run."""

import contextlib
import threading
from typing import Final

from backends.contract.subject import Subject, require
from backends.contract.trials import blank_outputs, run, same, some_inputs
from backends.kernel import Cancelled, Program
from backends.slots import layout
from firmware_shims.clock import boottime_ns

CANCELLED_RUNS: Final = 20
LONG_RUN_S: Final = 0.3
"""A run of this length is cancelled in its middle; rows are added until it should be that long."""
MOST_BYTES: Final = 256 << 20
TRIES: Final = 3
BOUND_FACTOR: Final = 3
SLACK_S: Final = 0.05
"""A cancel is in time within this factor of its bound and this much beside it: cores may be busy. Best of three."""


def cancel_without_a_run_does_nothing(subject: Subject) -> str:
    """Twice, after a run and before the next; that one is a good one."""
    with subject.program() as program:
        inputs = some_inputs(program.inputs, 1)
        good = run(program, inputs, 1)
        program.cancel()
        program.cancel()
        same(good, run(program, inputs, 1), "a run after a cancel", "start each run with a fresh cancel flag")
        return "twice between two runs"


def a_cancelled_run_harms_no_other(subject: Subject) -> str:
    """Cancelled from another thread a run raises Cancelled or ends well, and the next run is a good one."""
    with subject.program() as program:
        inputs = some_inputs(program.inputs, 1)
        good = run(program, inputs, 1)
        enough = threading.Event()
        cancelled = 0

        def cancel_all_the_time() -> None:
            while not enough.is_set():
                program.cancel()

        thread = threading.Thread(target=cancel_all_the_time)
        thread.start()
        try:
            fix = "raise Cancelled or finish; never return with half of the outputs"
            for _ in range(CANCELLED_RUNS):
                try:
                    same(good, run(program, inputs, 1), "a run beside cancels", fix)
                except Cancelled:
                    cancelled += 1
        finally:
            enough.set()
            thread.join()
        fix = "start each run with a fresh cancel flag"
        same(good, run(program, inputs, 1), "a run after a cancelled run", fix)
        return f"{CANCELLED_RUNS} runs under cancels, {cancelled} of them ended by one"


def a_cancel_ends_a_run_within_its_bound(subject: Subject) -> str:
    """In the middle of a long run, `cancel` returns at once and `run` within `cost.cancel_bound_s`."""
    with subject.over_many_nodes() as long:
        return _ends_within_its_bound(long)


def _ends_within_its_bound(subject: Subject) -> str:
    with subject.program() as program:
        bound_s = program.cost.cancel_bound_s
        if bound_s is None:
            return "not checked: cancel_bound_s is None, so preemption is by signal"
        rows = _rows_of_a_long_run(program)
        alone_s = _run_s(program, rows)
        growth = max(1.0, alone_s / program.cost.run_s.get(1, alone_s))
        allowed_s = BOUND_FACTOR * bound_s * growth + SLACK_S
        if alone_s / 2 < allowed_s:
            run_s = f"a run of {rows} rows takes {alone_s:.2g} s"
            return f"not checked: {run_s}, a cancel may take {allowed_s:.2g} s; give a heavier model with --model"
    tries = []
    for _ in range(TRIES):  # a program each: a cancel that comes too late may not hit the next try
        with subject.program() as program:
            tries.append(_cancelled_after(program, rows, alone_s / 4))
    late_s, call_s = min(tries)
    fix = "claim the bound that was measured, or None; let native code release the interpreter lock"
    seen = f"{rows} rows take {alone_s:.3g} s; cancelled, run returned {late_s:.3g} s later"
    require(late_s <= allowed_s, f"{seen}, cancel_bound_s is {bound_s:.3g} s at batch 1", fix)
    require(call_s <= SLACK_S, f"cancel() took {call_s:.3g} s", "set a flag and return")
    return f"{seen}, allowed {allowed_s:.3g} s"


def _rows_of_a_long_run(program: Program) -> int:
    row_s = min((s / rows for rows, s in program.cost.run_s.items()), default=LONG_RUN_S)
    _, row_bytes = layout((*program.inputs, *program.outputs), rows=1)
    wanted = min(int(LONG_RUN_S / row_s) + 1, MOST_BYTES // row_bytes)
    return max(1, min(wanted, program.max_batch or wanted))


def _run_s(program: Program, rows: int) -> float:
    inputs, outputs = some_inputs(program.inputs, rows), blank_outputs(program, rows, 0)
    begin_ns = boottime_ns()
    program.run(inputs, outputs)
    return (boottime_ns() - begin_ns) / 1e9


def _cancelled_after(program: Program, rows: int, delay_s: float) -> tuple[float, float]:
    """Seconds from the moment a cancel was due to the end of the run, and the seconds of the call itself."""
    inputs, outputs = some_inputs(program.inputs, rows), blank_outputs(program, rows, 0)
    call_s = [0.0]

    def cancel() -> None:
        begin_ns = boottime_ns()
        program.cancel()
        call_s[0] = (boottime_ns() - begin_ns) / 1e9

    timer = threading.Timer(delay_s, cancel)
    begin_ns = boottime_ns()
    timer.start()
    with contextlib.suppress(Cancelled):
        program.run(inputs, outputs)
    end_ns = boottime_ns()
    timer.join()
    return (end_ns - begin_ns) / 1e9 - delay_s, call_s[0]
