"""What a driver says about its device and programs, believed only where it is plausible."""

import math
from collections.abc import Sequence
from typing import Any, NoReturn

from firmware_shims.fsd.c_abi.layout import (
    DATATYPES,
    ENERGY_SOURCES,
    MAX_DIMS,
    MAX_NPUS,
    MAX_TENSORS,
    RawCapabilities,
    RawDescription,
    RawTensor,
)
from firmware_shims.fsd.interface import Binding, Capabilities, Code, FsdError


def believed_capabilities(raw: RawCapabilities) -> Capabilities:
    """What the device is; FsdError INTERNAL for what no device can be."""
    if not 1 <= raw.npus <= MAX_NPUS:
        _implausible("query", f"{raw.npus} NPUs; 1 to {MAX_NPUS} are possible")
    for size in ("sram_bytes", "clock_hz", "macs_per_cycle"):
        if getattr(raw, size) == 0:
            _implausible("query", f"`{size}` is 0")
    operators = _text(raw, "operators", "query").split()
    if not operators:
        _implausible("query", "`operators` names none, so no program could hold one")
    source = raw.energy_source  # not filled by version 1.0, and so 0: none
    if source not in ENERGY_SOURCES:
        _implausible("query", f"`energy_source` is {source}; 0 to {max(ENERGY_SOURCES)} have a meaning")
    return Capabilities(
        name=_text(raw, "name", "query"),
        npus=raw.npus,
        sram_bytes=raw.sram_bytes,
        clock_hz=raw.clock_hz,
        macs_per_cycle=raw.macs_per_cycle,
        operators=frozenset(operators),
        program_format=_text(raw, "program_format", "query"),
        energy_source=ENERGY_SOURCES[source],
        version=_text(raw, "version", "query"),
    )


def check_description(raw: RawDescription, npu: int) -> None:
    """Raise FsdError INTERNAL for a program of no tensors, of absurdly many, or on another NPU than asked for."""
    if raw.npu != npu:
        _implausible("describe", f"the program is on NPU {raw.npu}, and was loaded on {npu}")
    if not (raw.inputs and raw.outputs and raw.inputs + raw.outputs <= MAX_TENSORS):
        _implausible(
            "describe",
            f"{raw.inputs} inputs and {raw.outputs} outputs; 1 of each and {MAX_TENSORS} together are the limits",
        )


def believed_binding(raw: RawTensor) -> Binding:
    """The tensor; FsdError INTERNAL where its size is not that of its shape."""
    call = "describe_tensor"
    name = _text(raw, "name", call)
    if raw.datatype not in DATATYPES:
        _implausible(call, f"`datatype` of {name!r} is {raw.datatype}; 1 to {max(DATATYPES)} have a meaning")
    if raw.dims > MAX_DIMS:
        _implausible(call, f"{name!r} has {raw.dims} dimensions; {MAX_DIMS} is the limit")
    datatype, item_bytes = DATATYPES[raw.datatype]
    row_shape = tuple(raw.row_shape[: raw.dims])
    row_bytes = math.prod(row_shape) * item_bytes
    if raw.row_bytes != row_bytes or row_bytes == 0:
        _implausible(
            call,
            f"a row of {name!r}, {datatype} {list(row_shape)}, has {row_bytes} bytes, not {raw.row_bytes}",
        )
    return Binding(name, datatype, row_shape, row_bytes)


def check_names(bindings: Sequence[Binding]) -> None:
    """Raise FsdError INTERNAL where two have the same name."""
    names = [binding.name for binding in bindings]
    if len(set(names)) < len(names):
        _implausible("describe_tensor", f"tensors of the same name among {', '.join(names)}")


def _text(raw: Any, field: str, call: str) -> str:
    data = bytes(getattr(raw, field))
    end = data.find(0)
    if end < 0:
        _implausible(call, f"`{field}` has no end within its {len(data)} bytes")
    try:
        text = data[:end].decode()
    except UnicodeDecodeError as error:
        _implausible(call, f"`{field}` is no UTF-8: {error}")
    if not text or not text.isprintable():
        _implausible(call, f"`{field}` is {text!r}; printable text on one line is what can be used")
    return text


def _implausible(call: str, text: str) -> NoReturn:
    raise FsdError(Code.INTERNAL, call, f"the driver contradicts its header: {text}; take a corrected driver")
