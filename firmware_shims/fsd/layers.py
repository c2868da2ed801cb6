"""What an NPU program does, layer by layer: integer tensors, constants, and one operator each.

A layer takes int8 or uint8 tensors and gives one. `reading` makes layers of an ONNX file, `reference` and
`lowering` compute them, `demand` says what they ask of the chip.
"""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    Integers = npt.NDArray[np.integer]
    Scales = npt.NDArray[np.float32]

Datatype = Literal["INT8", "UINT8"]
"""The Open Inference Protocol's names."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """A tensor of one row. The real value of a stored `q` is `scale * (q - zero_point)`; `scale` is a float32."""

    name: str
    datatype: Datatype
    row_shape: tuple[int, ...]
    scale: float
    zero_point: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.row_shape)

    @property
    def lowest(self) -> int:
        """The smallest value that can be stored."""
        return -128 if self.datatype == "INT8" else 0

    @property
    def highest(self) -> int:
        """The largest value that can be stored."""
        return 127 if self.datatype == "INT8" else 255

    def stored_alike(self, other: "Quantised") -> bool:
        """Whether equal stored values are equal real values in both."""
        return (self.datatype, self.scale, self.zero_point) == (
            other.datatype,
            other.scale,
            other.zero_point,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """Constant integers. `scales` has one item, or one for each channel of the output."""

    values: "Integers"
    scales: "Scales"
    zero_point: int


@dataclass(frozen=True, slots=True)
class Window:
    """Where an operator looks, by spatial axis. `after` reaches as far as the last window does."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def reach(self, windows: "Sequence[int]") -> list[int]:
        """How far so many windows reach along each axis."""
        return [
            (count - 1) * stride + (taps - 1) * dilation + 1
            for count, stride, taps, dilation in zip(
                windows, self.strides, self.kernel, self.dilations, strict=True
            )
        ]


@dataclass(frozen=True, slots=True)
class Convolution:
    """`weights` have the shape (output channels, input channels / groups, *kernel); `bias` is int32."""

    weights: Constant
    bias: "Integers | None"
    groups: int
    window: Window


@dataclass(frozen=True, slots=True)
class TransposedConvolution:
    """`weights` have the shape (input channels, output channels / groups, *kernel).

    `window.before` and `after` are cut off the result, `output_padding` is added at its end.
    """

    weights: Constant
    bias: "Integers | None"
    groups: int
    window: Window
    output_padding: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MatrixProduct:
    """Times the constant `right`, of shape (k, n)."""

    right: Constant
    bias: "Integers | None"


@dataclass(frozen=True, slots=True)
class ActivationProduct:
    """The first input times the second, over their last two axes."""


@dataclass(frozen=True, slots=True)
class MaximumPool:
    """The largest of each window."""

    window: Window


@dataclass(frozen=True, slots=True)
class AveragePool:
    """The mean of each window; padding counts as zeros where `counts_padding`, else not at all."""

    window: Window
    counts_padding: bool


@dataclass(frozen=True, slots=True)
class GlobalAveragePool:
    """The mean of each channel."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Plus `constant`, or plus the second input where that is None."""

    constant: Constant | None


@dataclass(frozen=True, slots=True)
class Scaling:
    """Times `constant`."""

    constant: Constant


@dataclass(frozen=True, slots=True)
class Concatenation:
    """Of all inputs, along `axis` of the whole tensor; axis 0 is the row."""

    axis: int


@dataclass(frozen=True, slots=True)
class Passing:
    """The same real values in the output's shape and scale: a reshape, a ReLU of its own, a requantisation."""


Work = (
    Convolution
    | TransposedConvolution
    | MatrixProduct
    | ActivationProduct
    | MaximumPool
    | AveragePool
    | GlobalAveragePool
    | Sum
    | Scaling
    | Concatenation
    | Passing
)


@dataclass(frozen=True, slots=True)
class Layer:
    """One operator with its requantisation. Stored results are kept within `floor` and `ceiling`: ReLU, Clip."""

    name: str
    operator: str
    """The ONNX name."""
    inputs: tuple[Quantised, ...]
    output: Quantised
    work: Work
    floor: int
    ceiling: int

    @property
    def clips(self) -> bool:
        """Whether the limits are narrower than the datatype."""
        return (self.floor, self.ceiling) != (self.output.lowest, self.output.highest)


@dataclass(frozen=True, slots=True)
class Network:
    """Layers in an order in which each finds its inputs computed."""

    inputs: tuple[Quantised, ...]
    outputs: tuple[Quantised, ...]
    layers: tuple[Layer, ...]
