"""What a task asks of a backend: the model's bytes, the tensors of a row and the outputs that are wanted.

Tasks that ask for the same can share a program, its runs and what is known of its cost.
"""

import msgspec

from agent.protocol.messages import Task
from backends.kernel import Tensor


def row_tensors(task: Task) -> tuple[Tensor, ...]:
    """The inputs as a backend sees them: without their rows."""
    return tuple(
        Tensor(
            tensor.name,
            tensor.datatype.value,
            tuple(tensor.shape if tensor.parameters.shared else tensor.shape[1:]),
            tensor.parameters.shared,
        )
        for tensor in task.inputs
    )


def program_key(task: Task) -> str:
    """The same for two tasks if, and only if, they can share a program."""
    inputs = [
        (
            tensor.name,
            tensor.datatype,
            tensor.shape if tensor.parameters.shared else tensor.shape[1:],
            tensor.parameters.shared,
        )
        for tensor in task.inputs
    ]
    asked = msgspec.json.encode((inputs, [output.name for output in task.outputs]))
    return task.model.sha256 + asked.decode()
