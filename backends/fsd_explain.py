"""Where the layers of a model run on the FSD computer, and what they cost by the model of the published chip."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Final

from onnx import NodeProto

from backends.explanation import ExplainedLayer, Explanation
from backends.fsd_calibration import OPTION, Calibration
from backends.fsd_failures import as_kernel_errors
from backends.fsd_graph import PRODUCTS, declared_inputs, parsed, shapes_of
from backends.fsd_loading import Cut, cut, taken
from backends.fsd_partition import Part, Place
from backends.fsd_quantising import needs_quantising
from backends.kernel import Model
from firmware_shims.fsd.chip import FSD
from firmware_shims.fsd.cost import Report
from firmware_shims.fsd.emulator import Emulator
from firmware_shims.fsd.units import named

MODELLED: Final = (
    "seconds and joules are predicted by a model of the published chip: nothing here was measured, and the host's "
    "layers are not in the sums"
)
MADE_UP: Final = (
    "the model is in floats; it was quantised with made-up ranges, because costs depend on shapes: "
    f"to run it, give typical rows in {OPTION}"
)
UNREFUSED: Final = {
    "DequantizeLinear": "it makes floats of integers for what comes next",
    "QuantizeLinear": "it makes integers of what the host has computed",
}
"""Nodes that are on the host because of their neighbours."""
IN_FLOATS: Final = (
    "the model is in floats and has no product of matrices: there is nothing for the NPU's array"
)


def explained(data: bytes, model: Model, arena_bytes: int) -> Explanation:
    """Quantise and cut a model as a load does, and run nothing; raises `KernelError`."""
    given = taken(data, model if model.inputs else replace(model, inputs=declared_inputs(parsed(data))))
    notes = [MODELLED, MADE_UP] if needs_quantising(given.model) else [MODELLED]
    emulator = Emulator("reference")  # predicts without a session that could compute
    try:
        found = cut(given, Calibration.made_up(given.inputs), emulator.capabilities.operators, arena_bytes)
        with as_kernel_errors():
            reports = [_report(found, part, emulator) for part in found.parts]
    finally:
        emulator.close()
    macs = {named(node): _macs(node, shapes_of(found.model)) for node in found.model.graph.node}
    layers = [
        layer
        for part, report in zip(found.parts, reports, strict=True)
        for layer in (_on_npu(part, report) if report else _on_host(part, found.reasons, macs))
    ]
    return _summed(layers, [report for report in reports if report], notes)


def _report(found: Cut, part: Part, emulator: Emulator) -> Report | None:
    """The modelled cost of one row; None for a part of the host."""
    if part.place is Place.HOST:
        return None
    return emulator.load(found.cutting.model_of(part).SerializeToString(), npu=0).report()


def _on_npu(part: Part, report: Report) -> Iterator[ExplainedLayer]:
    for vertex, cost in zip(part.vertices, report.layers, strict=True):
        yield ExplainedLayer(
            vertex.name,
            vertex.operator,
            "npu",
            "",
            cost.macs,
            cost.utilisation,
            cost.seconds,
            cost.joules,
            cost.sram_bytes,
            cost.dram_bytes,
        )


def _on_host(part: Part, reasons: Mapping[str, str], macs: Mapping[str, int]) -> Iterator[ExplainedLayer]:
    for vertex in part.vertices:
        why = reasons.get(vertex.name) or UNREFUSED.get(vertex.operator, IN_FLOATS)
        yield ExplainedLayer(vertex.name, vertex.operator, "host", why, macs[vertex.name])


def _macs(node: NodeProto, shapes: Mapping[str, Sequence[int]]) -> int:
    """Multiply-accumulates of a node, 0 where it has none or its sizes are not known."""
    names = [*node.input[:2], node.output[0]]
    if node.op_type not in PRODUCTS or any(name not in shapes for name in names):
        return 0
    left, right, result = (shapes[name] for name in names)
    match node.op_type:
        case "Conv":
            return prod(result) * prod(right[1:])
        case "ConvTranspose":
            return prod(left) * prod(right[1:])
        case "Gemm":
            transposed = any(item.name == "transA" and item.i for item in node.attribute)
            return prod(result) * left[0 if transposed else 1]
        case _:
            return prod(result) * left[-1]


def _summed(layers: Sequence[ExplainedLayer], reports: Sequence[Report], notes: Sequence[str]) -> Explanation:
    npu_macs, cycles = sum(report.macs for report in reports), sum(report.cycles for report in reports)
    return Explanation(
        device="FSD computer, one NPU",
        source="model",
        layers=layers,
        npu_parts=len(reports),
        macs=sum(layer.macs for layer in layers),
        npu_macs=npu_macs,
        utilisation=npu_macs / (cycles * FSD.macs_per_cycle) if cycles else 0.0,
        seconds=sum(report.seconds for report in reports),
        joules=sum(report.joules for report in reports),
        sram_bytes=sum(report.sram_bytes for report in reports),
        dram_bytes=sum(report.dram_bytes for report in reports),
        resident_bytes=sum(report.resident_bytes for report in reports),
        notes=notes,
    )
