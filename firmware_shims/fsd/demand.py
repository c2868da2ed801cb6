"""What the layers of a network ask of the chip, and what the network therefore costs."""

from collections import Counter
from dataclasses import replace
from math import prod
from typing import Final

from firmware_shims.fsd.chip import FSD, Chip, Product
from firmware_shims.fsd.cost import Demand, Report, report
from firmware_shims.fsd.layers import (
    ActivationProduct,
    Concatenation,
    Constant,
    Convolution,
    Layer,
    MatrixProduct,
    Network,
    Passing,
    Quantised,
    Scaling,
    Sum,
    TransposedConvolution,
)
from firmware_shims.fsd.placement import Tensor

BIAS_BYTES: Final = 4


def modelled(network: Network, rows: int = 1, chip: Chip = FSD) -> Report:
    """The cost of a run of so many rows, in the equal parts that take the least time."""
    parts = [size for size in range(rows, 0, -1) if rows % size == 0]
    reports = [replace(report(demands(network, size), chip), times=rows // size) for size in parts]
    return min(reports, key=lambda found: found.seconds)


def demands(network: Network, rows: int) -> list[Demand]:
    """One for each layer, for a run of so many rows."""
    homes = _homes(network)
    ends = {homes[tensor.name].name for tensor in (*network.inputs, *network.outputs)}
    readers = Counter(source.name for layer in network.layers for source in layer.inputs)
    off_array = {layer.output.name for layer in network.layers if _product(layer, rows)}

    def placed(tensor: Quantised) -> Tensor:
        home = homes[tensor.name]
        return Tensor(home.name, rows * home.row_bytes, home.name in ends)

    found = []
    for layer in network.layers:
        product, stays = _product(layer, rows), homes[layer.output.name].name != layer.output.name
        streaming = [source.name in off_array and readers[source.name] == 1 for source in layer.inputs]
        if isinstance(layer.work, Concatenation):
            hidden = all(streaming) or _in_place(layer)
        else:
            hidden = stays or (product is None and any(streaming))
        inputs = tuple(placed(source) for source in layer.inputs)
        output = None if stays else placed(layer.output)
        found.append(
            Demand(layer.name, layer.operator, product, hidden, inputs, output, _weight_bytes(layer))
        )
    return found


def _homes(network: Network) -> dict[str, Quantised]:
    """Where each tensor lies: a reshape gives its input another name and moves nothing."""
    homes = {tensor.name: tensor for tensor in network.inputs}
    for layer in network.layers:
        source = layer.inputs[0]
        stays = isinstance(layer.work, Passing) and source.stored_alike(layer.output) and not layer.clips
        homes[layer.output.name] = homes[source.name] if stays else layer.output
    return homes


def _in_place(layer: Layer) -> bool:
    """Whether a concatenation's parts can be written where they belong."""
    return not layer.clips and all(source.stored_alike(layer.output) for source in layer.inputs)


def _product(layer: Layer, rows: int) -> Product | None:
    """The layer on the array. A transposed convolution is taken to multiply by the zeros between its inputs."""
    shape = layer.output.row_shape
    match layer.work:
        case Convolution(weights, _, groups, _):
            outputs, *terms = weights.values.shape
            m, n, k = rows * prod(shape[1:]), outputs // groups, prod(terms)
            return Product(m, n, k, groups, groups * m * n * k)
        case TransposedConvolution(weights, _, groups, _, _):
            inputs, n, *kernel = weights.values.shape
            k, seen = inputs // groups * prod(kernel), rows * prod(layer.inputs[0].row_shape[1:])
            return Product(rows * prod(shape[1:]), n, k, groups, seen * inputs * n * prod(kernel))
        case MatrixProduct(right, _):
            k, n = right.values.shape
            m = rows * prod(shape[:-1])
            return Product(m, n, k, 1, m * n * k)
        case ActivationProduct():
            groups, m, n, k = rows * prod(shape[:-2]), shape[-2], shape[-1], layer.inputs[0].row_shape[-1]
            return Product(m, n, k, groups, groups * m * n * k)
        case _:
            return None


def _weight_bytes(layer: Layer) -> int:
    match layer.work:
        case (
            Convolution(constant, bias)
            | TransposedConvolution(constant, bias)
            | MatrixProduct(constant, bias)
        ):
            return constant.values.nbytes + (0 if bias is None else BIAS_BYTES * bias.size)
        case Sum(Constant() as constant) | Scaling(constant):
            return constant.values.nbytes
        case _:
            return 0
