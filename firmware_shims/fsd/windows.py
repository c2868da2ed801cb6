"""Windows of convolutions and pools out of their ONNX attributes, with every way of saying the padding resolved."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from firmware_shims.fsd.layers import Window
from firmware_shims.fsd.units import Refused


def window_of(
    attributes: Mapping[str, Any], kernel: Sequence[int], source: Sequence[int], target: Sequence[int]
) -> Window:
    """The window by which `target`, a spatial shape, comes of `source`; raises `Refused`.

    Where the last window reaches beyond the padding (ceil_mode), the padding is that much longer.
    """
    unpadded = replace(
        written_window(attributes, kernel), before=(0,) * len(kernel), after=(0,) * len(kernel)
    )
    if not len(kernel) == len(source) == len(target):
        raise Refused(f"its kernel has {len(kernel)} axes and its input {len(source)}")
    reach = unpadded.reach(target)
    before = _before(attributes, source, reach)
    # negative where the strides leave something over at the end: nobody looks at that
    after = tuple(max(0, far - size - first) for far, size, first in zip(reach, source, before, strict=True))
    return replace(unpadded, before=before, after=after)


def written_window(attributes: Mapping[str, Any], kernel: Sequence[int]) -> Window:
    """The window as the attributes say it, automatic padding aside; raises `Refused`."""
    axes = len(kernel)
    strides, dilations = (tuple(attributes.get(name, [1] * axes)) for name in ("strides", "dilations"))
    pads = tuple(attributes.get("pads", [0] * 2 * axes))
    if (
        not len(strides) == len(dilations) == len(pads) / 2 == axes
        or min(*strides, *dilations) < 1
        or min(pads) < 0
    ):
        raise Refused(f"its pads, strides or dilations do not fit a kernel of the shape {list(kernel)}")
    return Window(tuple(kernel), strides, dilations, pads[:axes], pads[axes:])


def pool_window(attributes: Mapping[str, Any], source: Sequence[int], target: Sequence[int]) -> Window:
    """The window of a pool; raises `Refused` where one could see nothing but padding."""
    window = window_of(attributes, attributes["kernel_shape"], source, target)
    for taps, *pads in zip(window.kernel, window.before, window.after, strict=True):
        if max(pads) >= taps:
            raise Refused(f"its windows of {taps} may lie wholly in its padding of {max(pads)}: pad less")
    return window


def _before(attributes: Mapping[str, Any], source: Sequence[int], reach: Sequence[int]) -> tuple[int, ...]:
    automatic = attributes.get("auto_pad", b"NOTSET")
    if automatic == b"NOTSET":
        return tuple(attributes.get("pads", [0] * 2 * len(source)))[: len(source)]
    if automatic == b"VALID":
        return (0,) * len(source)
    missing = [max(0, far - size) for far, size in zip(reach, source, strict=True)]
    upper = automatic == b"SAME_UPPER"
    return tuple(count // 2 if upper else count - count // 2 for count in missing)
