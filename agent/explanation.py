"""`parkwatt backends explain`: asks a backend, and lays its answer out as a table."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from backends.contract.subject import given_model
from backends.explanation import ExplainedLayer, Explaining, Explanation
from backends.kernel import KernelError
from backends.registry import UnknownBackend, find

HEAD: Final = ("layer", "operator", "where", "MMAC", "used", "us", "uJ", "SRAM KiB", "DRAM KiB")
NUMBERS_FROM: Final = 3
NAME_WIDEST: Final = 44
WHY_WIDEST: Final = 100
"""Characters. The end of a name tells it from others, and the beginning of a reason is what counts."""


class NotExplained(Exception):  # noqa: N818 - an answer: why, and what to do
    """The backend or the model is none that can be explained."""


def explanation(use: str, path: Path, inputs: Sequence[str]) -> Explanation:
    """What backend `use`, with its default options, says about a model; raises `NotExplained`.

    `inputs` are NAME:DATATYPE:SIZExSIZE without the row; empty for the sizes that the file fixes.
    """
    try:
        kind = find(use)
        backend = kind(kind.Options())
        if not isinstance(backend, Explaining):
            raise NotExplained(f"backend {use!r} cannot explain models: take fsd")
        return backend.explain(given_model(path, "onnx", inputs))
    except (UnknownBackend, ValueError, OSError) as error:
        raise NotExplained(str(error)) from error
    except KernelError as error:
        raise NotExplained(f"{path}: {error.text}") from error


def described(found: Explanation) -> Iterator[str]:
    """A line for each layer, the sums, and what is to be said about them."""
    rows = [_cells(layer) for layer in found.layers]
    widths = [max(map(len, column)) for column in zip(HEAD, *rows, strict=True)]
    for cells, why in [(HEAD, ""), *zip(rows, (layer.why for layer in found.layers), strict=True)]:
        yield f"{_line(cells, widths)}  {why if len(why) <= WHY_WIDEST else why[:WHY_WIDEST] + '..'}".rstrip()
    on_npu = sum(layer.place == "npu" for layer in found.layers)
    share = found.npu_macs / found.macs if found.macs else 0.0
    yield ""
    yield (
        f"on the NPU: {on_npu} of {len(found.layers)} layers in {found.npu_parts} parts, {share:.1%} of "
        f"{found.macs / 1e6:.4g} million multiply-accumulates"
    )
    yield (
        f"one row on {found.device}, by {found.source}: {found.seconds * 1e3:.4g} ms, {found.joules * 1e3:.4g} mJ, "
        f"{found.utilisation:.1%} of the array in use, {found.sram_bytes / 1024:.4g} KiB of SRAM and "
        f"{found.dram_bytes / 1024:.4g} KiB of DRAM read and written, {found.resident_bytes / 1024:.4g} KiB of weights resident"
    )
    yield from (f"note: {note}" for note in found.notes)


def _cells(layer: ExplainedLayer) -> Sequence[str]:
    name = layer.name if len(layer.name) <= NAME_WIDEST else f"..{layer.name[2 - NAME_WIDEST :]}"
    return (
        name,
        layer.operator,
        layer.place,
        f"{layer.macs / 1e6:.3f}" if layer.macs else "-",
        f"{layer.utilisation:.1%}" if layer.utilisation else "-",
        _scaled(layer.seconds, 1e6),
        _scaled(layer.joules, 1e6),
        _scaled(layer.sram_bytes, 1 / 1024),
        _scaled(layer.dram_bytes, 1 / 1024),
    )


def _scaled(value: float | None, factor: float) -> str:
    return "-" if value is None else f"{value * factor:.2f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        cell.rjust(width) if place >= NUMBERS_FROM else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
