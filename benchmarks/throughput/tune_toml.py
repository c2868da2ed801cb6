"""The section for agent.toml that tuning has found."""

import json

from benchmarks.throughput.provenance import taken
from benchmarks.throughput.tune import Tuned, Tuning
from benchmarks.throughput.tune_report import summary


def section(tuning: Tuning, tuned: Tuned, max_power_w: float) -> str:
    """`[[backends]]` with what it is worth and where; ValueError where no setting has kept the bounds.

    TOML writes the values of options as JSON does: booleans, numbers, strings and lists of them.
    """
    if tuned.taken is None:
        raise ValueError("no setting has kept the bounds: there is nothing to write")
    setting = tuned.taken.setting
    said = [f"{tuning.sides.subject.entry.id} on {_machine()}", *summary(tuning, tuned)]
    if max(setting.batch, tuned.full_batch) > 1:
        said.append(
            "how many rows run together is up to the tasks: the agent runs what waits, up to 50 ms of it"
        )
    return "\n".join(
        (
            *(f"# {line}" for line in said),
            "[[backends]]",
            f"use = {json.dumps(tuning.sides.use)}",
            f"max_power_w = {max_power_w:g}  # was not measured: the computer's data sheet has it",
            "[backends.options]",
            *(f"{name} = {json.dumps(value)}" for name, value in setting.options.items()),
            "",
        )
    )


def _machine() -> str:
    here = taken((), None, "", None)
    return (
        f"{here.cpu_model}, {here.cores} cores, {here.began_at}, parkwatt {here.versions.get('parkwatt', '')}"
    )
