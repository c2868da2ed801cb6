"""Checks of what a backend says about itself, before and after a load."""

import math
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import Final

from pydantic import ValidationError

from backends import registry
from backends.contract.subject import Broken, Subject, require
from backends.contract.trials import blank_outputs, some_inputs
from backends.datatypes import ITEM_BYTES
from backends.kernel import Device
from firmware_shims.clock import boottime_ns

HEAVY: Final = frozenset({"numpy", "onnxruntime", "tflite_runtime", "ai_edge_litert", "joserfc", "rich"})
TIMED_RUNS: Final = 5
COST_FACTOR: Final = 10
COST_SLACK_S: Final = 0.01
"""A cost is believed within this factor, and this much beside it: another task may have had the processor."""


def importing_it_is_light(subject: Subject) -> str:
    """The supervisor imports the module for its options, and may not get a runtime with it."""
    module = registry.find(subject.use).__module__
    code = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    # our own interpreter and code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    require(
        done.returncode == 0, f"import {module} failed: {done.stderr[-500:]}", "make the module importable"
    )
    imported = done.stdout.strip()
    require(not imported, f"import {module} also imports {imported}", "import the runtime inside the methods")
    return f"import {module} brings in none of {', '.join(sorted(HEAVY))}"


def options_refuse_what_they_do_not_know(subject: Subject) -> str:
    """A misspelt key in agent.toml is an error, never ignored."""
    try:
        registry.validate_options(subject.use, {**subject.options, "no_such_option": 1})
    except ValidationError:
        return "no_such_option = 1 was refused"
    raise Broken("no_such_option = 1 was accepted", "set model_config = ConfigDict(extra='forbid')")


def options_are_documented(subject: Subject) -> str:
    """Each option has a description: it is the documentation that users get."""
    fields = registry.find(subject.use).Options.model_fields
    bare = [name for name, field in fields.items() if not field.description]
    require(not bare, f"no description for {', '.join(bare)}", "write Field(description=...)")
    return f"{len(fields)} options, each described" if fields else "there are no options"


def probe_names_devices(subject: Subject) -> str:
    """Each device has a name of its own, formats, and a reason if it cannot be used; nothing is raised."""
    devices = subject.backend().probe()
    fix = "return kernel.Device(name, formats, why)"
    require(all(isinstance(device, Device) for device in devices), f"probe() gave {devices!r}", fix)
    names = [device.name for device in devices]
    require(len(set(names)) == len(names), f"two devices have one name: {names}", "number them")
    require(all(device.formats for device in devices), f"a device takes no format: {devices}", fix)
    return (
        ", ".join(f"{device.name} ({device.why or ' '.join(device.formats)})" for device in devices)
        or "no device"
    )


def a_program_describes_itself(subject: Subject) -> str:
    """Inputs are those of the model; outputs have names, datatypes and shapes that can be allocated."""
    with subject.program() as program:
        require(
            set(program.inputs) == set(subject.model.inputs),
            f"inputs are {program.inputs}, the model was given with {subject.model.inputs}",
            "keep model.inputs as they are; only the order is yours",
        )
        require(bool(program.outputs), "there is no output", "set program.outputs in load()")
        for tensor in program.outputs:
            require(
                tensor.datatype in ITEM_BYTES and all(size >= 1 for size in tensor.row_shape),
                f"output {tensor}",
                "take Open Inference Protocol datatypes and sizes from 1, without the row dimension",
            )
        most = program.max_batch
        require(most is None or most >= 1, f"max_batch is {most}", "None is without a limit, 1 is row by row")
        return f"{len(program.inputs)} in, {len(program.outputs)} out, max_batch {most}"


def costs_make_sense(subject: Subject) -> str:
    """What is claimed is above zero and finite, and a run takes about what `cost.run_s` says."""
    with subject.program() as program:
        cost = program.cost
        fix = "measure it in load(), or leave it empty or None"
        numbers = [*cost.run_s.values(), *cost.run_j.values()]
        numbers += [n for n in (cost.bytes_resident, cost.cancel_bound_s) if n is not None]
        require(all(math.isfinite(n) and n > 0 for n in numbers), f"{cost}", fix)
        most = program.max_batch or max(cost.run_s, default=1)
        sizes = {*cost.run_s, *cost.run_j}
        require(
            all(1 <= rows <= most for rows in sizes), f"batches of {sorted(sizes)}, max_batch {most}", fix
        )
        if 1 not in cost.run_s:
            return "not measured: run_s has no batch of 1"
        inputs, outputs = some_inputs(program.inputs, 1), blank_outputs(program, 1, 0)
        seconds: list[float] = []
        for _ in range(TIMED_RUNS):
            begin_ns = boottime_ns()
            program.run(inputs, outputs)
            seconds.append((boottime_ns() - begin_ns) / 1e9)
        claimed_s, seen_s = cost.run_s[1], statistics.median(seconds)
        require(
            seen_s <= COST_FACTOR * claimed_s + COST_SLACK_S
            and claimed_s <= COST_FACTOR * seen_s + COST_SLACK_S,
            f"run_s[1] is {claimed_s:.3g} s, a run took {seen_s:.3g} s",
            "measure after warm-up, the whole run with its copies",
        )
        return (
            f"run_s[1] is {claimed_s:.3g} s, a run took {seen_s:.3g} s; {cost.bytes_resident} bytes resident"
        )


def a_known_cost_changes_nothing(subject: Subject) -> str:
    """A load that need not measure gives the same program, with the cost that was given or a new one."""
    with subject.program() as program:
        first, seen = program.cost, (program.outputs, program.max_batch)
    with replace(subject, model=replace(subject.model, known=first)).program() as program:
        again = program.outputs, program.max_batch
        require(
            again == seen,
            f"with its cost known, outputs and max_batch are {again}, before {seen}",
            "take from model.known only what would be measured",
        )
        return "taken over" if program.cost == first else "measured again"
