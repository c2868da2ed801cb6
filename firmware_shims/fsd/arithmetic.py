"""The arithmetic of the emulated NPU, stated in NumPy: integers in, integers out, the first axis is the row.

Products of 8-bit integers are summed in int32 and requantised: times a float32 multiplier, rounded half to
even, saturated. The order and width of every rounding are onnxruntime's for its QLinear operators on x86-64
with AVX2, so results equal it bit for bit; what the chip rounds differently is not published.

Sums are formed in float64, which holds every one of them exactly: 2**53 is far above the int32 that `operators`
makes sure they fit.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_shims.fsd.layers import (
    AveragePool,
    Constant,
    Convolution,
    Quantised,
    TransposedConvolution,
    Window,
)

Array = npt.NDArray[Any]
Sums = npt.NDArray[np.int32]
Reals = npt.NDArray[np.float32]

DTYPES = {"INT8": np.int8, "UINT8": np.uint8}


def multiplier(source: Quantised, scales: Reals, target: Quantised) -> Reals:
    """What turns a sum of products into a stored result, in float32, one for each of `scales`."""
    return np.float32(source.scale) * scales / np.float32(target.scale)


def requantised(sums: Sums, factor: Reals, target: Quantised) -> Array:
    """Stored results of sums. `factor` broadcasts against them."""
    return saturated(np.rint(sums.astype(np.float32) * factor) + target.zero_point, target)


def saturated(values: Array, target: Quantised) -> Array:
    """Whole numbers, kept within the target's datatype."""
    return np.clip(values, target.lowest, target.highest).astype(DTYPES[target.datatype])


def real(stored: Array, source: Quantised) -> Reals:
    """Float32 values of stored integers."""
    return np.float32(source.scale) * (stored.astype(np.int32) - source.zero_point).astype(np.float32)


def stored(values: Reals, target: Quantised) -> Array:
    """Float32 values as stored integers."""
    return saturated(np.rint(values / np.float32(target.scale)) + target.zero_point, target)


def rescaled(values: Array, source: Quantised, target: Quantised) -> Array:
    """Stored values of one scale and zero point in those of another; unchanged where they are the same."""
    return values if source.stored_alike(target) else stored(real(values, source), target)


def convolution_sums(values: Array, zero_point: int, work: Convolution) -> Sums:
    """Sums of shape (rows, output channels, *spatial) of values of shape (rows, input channels, *spatial)."""
    rows, channels = values.shape[:2]
    weights, groups = work.weights.values, work.groups
    outputs = len(weights)
    by_tap = _by_tap(work.weights, (groups, outputs // groups, channels // groups))
    sums: Array = np.zeros(())
    for tap, seen in _taps(_padded(values.astype(np.float64) - zero_point, work.window, 0.0), work.window):
        spatial = seen.shape[2:]
        sums = sums + by_tap[tap] @ seen.reshape(rows, groups, channels // groups, -1)
    return _whole(sums.reshape(rows, outputs, *spatial), work.bias)


def transposed_convolution_sums(values: Array, zero_point: int, work: TransposedConvolution) -> Sums:
    """As `convolution_sums`, each value spreading its products over the window instead of gathering them."""
    rows, channels, *spatial = values.shape
    window, groups = work.window, work.groups
    outputs = work.weights.values.shape[1] * groups
    by_tap = _by_tap(work.weights, (groups, channels // groups, outputs // groups))
    flat = (values.astype(np.float64) - zero_point).reshape(rows, groups, channels // groups, -1)
    reach = [far + extra for far, extra in zip(window.reach(spatial), work.output_padding, strict=True)]
    sums = np.zeros((rows, outputs, *reach))
    for tap in np.ndindex(window.kernel):
        spread = by_tap[tap].swapaxes(-1, -2) @ flat
        sums[:, :, *_places(tap, spatial, window)] += spread.reshape(rows, outputs, *spatial)
    kept = (
        slice(before, size - after)
        for before, size, after in zip(window.before, reach, window.after, strict=True)
    )
    return _whole(sums[:, :, *kept], work.bias)


def product_sums(left: Array, left_zero: int, right: Array, right_zero: int, bias: Array | None) -> Sums:
    """Sums of the matrix product over the last two axes; `bias` belongs to the last."""
    sums = (left.astype(np.float64) - left_zero) @ (right.astype(np.float64) - right_zero)
    return (sums if bias is None else sums + bias).astype(np.int32)


def added(left: Array, first: Quantised, right: Array, second: Quantised, target: Quantised) -> Array:
    """Stored sums. Real values are never formed: both ratios of scales and one offset are, in float32."""
    left_ratio = np.float32(first.scale) / np.float32(target.scale)
    right_ratio = np.float32(second.scale) / np.float32(target.scale)
    zeros = fused(left_ratio, np.float32(first.zero_point), right_ratio * np.float32(second.zero_point))
    offset = np.float32(target.zero_point) - zeros
    right_part = fused(right.astype(np.float32), right_ratio, offset)
    return saturated(np.rint(fused(left.astype(np.float32), left_ratio, right_part)), target)


def fused(left: Any, right: Any, addend: Any) -> Any:
    """`left * right + addend` in float32, rounded once.

    The product of two float32 is exact in float64; that the sum is rounded to float64 first could only matter
    where it then lies in the middle of two float32.
    """
    return np.float32(np.float64(left) * np.float64(right) + np.float64(addend))


def multiplied(left: Array, first: Quantised, right: Array, second: Quantised, target: Quantised) -> Array:
    """Stored products. The zero point is added before rounding, as onnxruntime does here and only here."""
    ratio = np.float32(first.scale) * np.float32(second.scale) / np.float32(target.scale)
    products = (left.astype(np.int32) - first.zero_point) * (right.astype(np.int32) - second.zero_point)
    return saturated(np.rint(products.astype(np.float32) * ratio + np.float32(target.zero_point)), target)


def maximum_pooled(values: Array, source: Quantised, window: Window) -> Array:
    """The largest stored value of each window; padding never wins."""
    seen = [part for _, part in _taps(_padded(values, window, source.lowest), window)]
    return np.asarray(np.maximum.reduce(seen))


def average_pooled(values: Array, source: Quantised, target: Quantised, work: AveragePool) -> Array:
    """The mean of each window: real values summed in float32, row by row of the window, then stored."""
    window = work.window
    within = np.ones((1, 1, *values.shape[2:]), np.float32)
    counted = 1.0 if work.counts_padding else 0.0
    total = sum(seen for _, seen in _taps(_padded(real(values, source), window, 0.0), window))
    count = sum(seen for _, seen in _taps(_padded(within, window, counted), window))
    means = np.asarray(total) / np.asarray(count)
    return saturated(np.rint(means / np.float32(target.scale) + np.float32(target.zero_point)), target)


def globally_pooled(values: Array, source: Quantised, target: Quantised) -> Array:
    """The mean of each channel, by integer sums."""
    axes = tuple(range(2, values.ndim))
    count = np.float32(values[0, 0].size)
    sums = (values.astype(np.int32) - source.zero_point).sum(axis=axes, keepdims=True, dtype=np.int32)
    factor = np.float32(source.scale) / (np.float32(target.scale) * count)
    return requantised(sums, np.asarray(factor), target)


def _by_tap(weights: Constant, grouped: tuple[int, int, int]) -> Array:
    """Weights less their zero point, with the axes of the kernel first."""
    kernel = weights.values.shape[2:]
    real_weights = (weights.values.astype(np.float64) - weights.zero_point).reshape(*grouped, *kernel)
    return np.moveaxis(real_weights, (0, 1, 2), (-3, -2, -1))


def _padded(values: Array, window: Window, filling: float) -> Array:
    margins = ((0, 0), (0, 0), *zip(window.before, window.after, strict=True))
    return np.pad(values, margins, constant_values=filling)


def _taps(padded: Array, window: Window) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Each position of the kernel with what all windows see there, in row-major order."""
    sizes = [
        (size - (kernel - 1) * dilation - 1) // stride + 1
        for size, kernel, dilation, stride in zip(
            padded.shape[2:], window.kernel, window.dilations, window.strides, strict=True
        )
    ]
    for tap in np.ndindex(window.kernel):
        yield tap, padded[:, :, *_places(tap, sizes, window)]


def _places(tap: Sequence[int], sizes: Sequence[int], window: Window) -> Iterator[slice]:
    """Where one position of the kernel falls, for each axis with so many windows."""
    for at, size, stride, dilation in zip(tap, sizes, window.strides, window.dilations, strict=True):
        yield slice(at * dilation, at * dilation + (size - 1) * stride + 1, stride)


def _whole(sums: Array, bias: Array | None) -> Sums:
    if bias is not None:
        sums = sums + bias.reshape(1, -1, *[1] * (sums.ndim - 2))
    return sums.astype(np.int32)
