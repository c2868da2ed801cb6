"""Two ways to compute a network with the same results: by the arithmetic itself, and by one onnxruntime session."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from firmware_shims.fsd import runtime
from firmware_shims.fsd.arithmetic import Array
from firmware_shims.fsd.interface import Code, FsdError
from firmware_shims.fsd.layers import Network, Quantised
from firmware_shims.fsd.lowering import lowered
from firmware_shims.fsd.reference import computed
from firmware_shims.fsd.unsigned import in_unsigned, moved

Way = Literal["fast", "reference"]


class Aborted(Exception):  # noqa: N818 - an outcome that was asked for, not an error
    """The run was given up between two layers."""


class Computation(Protocol):
    """One run of a network."""

    def results(self, inputs: Sequence[Array]) -> Sequence[Array]:
        """Outputs for inputs of shape (rows, *row_shape); raises `Aborted`, and `FsdError` INTERNAL."""

    def abort(self) -> None:
        """End it at the next layer, also before it has begun; from any thread."""


def computations(network: Network, way: Way, threads: int) -> Callable[[], Computation]:
    """What makes the runs of a network. Raises `FsdError` where onnxruntime is asked for and missing."""
    if way == "reference":
        return lambda: _ByArithmetic(network)
    onnxruntime = runtime.imported()
    session = runtime.session(onnxruntime, lowered(in_unsigned(network)), threads)
    return lambda: _BySession(onnxruntime, session, network)


class _ByArithmetic:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._unsigned = in_unsigned(network)
        self._given_up = threading.Event()

    def results(self, inputs: Sequence[Array]) -> Sequence[Array]:
        unsigned = _moved(inputs, self._network.inputs)
        # row by row: an abort waits for one layer of one row
        rows = [
            computed(self._unsigned, [array[row : row + 1] for array in unsigned], self._between_layers)
            for row in range(len(unsigned[0]))
        ]
        return _moved([np.concatenate(parts) for parts in zip(*rows, strict=True)], self._network.outputs)

    def abort(self) -> None:
        self._given_up.set()

    def _between_layers(self) -> None:
        if self._given_up.is_set():
            raise Aborted


class _BySession:
    def __init__(self, onnxruntime: Any, session: Any, network: Network) -> None:
        self._session = session
        self._network = network
        self._options = onnxruntime.RunOptions()  # new for each run: `terminate` is sticky
        self._options.log_severity_level = runtime.FATAL
        self._given_up = False

    def results(self, inputs: Sequence[Array]) -> Sequence[Array]:
        names = [tensor.name for tensor in self._network.inputs]
        unsigned = dict(zip(names, _moved(inputs, self._network.inputs), strict=True))
        try:
            found = self._session.run(None, unsigned, self._options)
        except Exception as error:  # its classes have no base of their own
            if self._given_up:  # the exception itself does not tell
                raise Aborted from error
            raise FsdError(Code.INTERNAL, "wait", f"onnxruntime: {error}") from error
        return _moved(found, self._network.outputs)

    def abort(self) -> None:
        self._given_up = True
        self._options.terminate = True


def _moved(arrays: Sequence[Array], tensors: Sequence[Quantised]) -> list[Array]:
    """Arrays of int8 tensors as uint8 or back, the others as they are."""
    return [
        moved(array) if tensor.datatype == "INT8" else array
        for array, tensor in zip(arrays, tensors, strict=True)
    ]
