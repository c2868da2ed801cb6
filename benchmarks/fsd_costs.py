"""What real networks are modelled to cost on the FSD computer: a line for each, and a picture of its layers."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backends.explanation import ExplainedLayer, Explanation
from backends.fsd import Fsd, FsdOptions
from backends.kernel import Model
from benchmarks.fsd_networks import resnet50_int8
from benchmarks.packaged_models import MEASURED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PACKAGED: Final = {
    "text-detector": "text detector",
    "text-angles": "text angles",
    "sentence-embedding": "sentence embedding",
}
"""Name of the picture, and how the packaged model's name begins."""
COLOURS: Final = {
    "Conv": "#2b6cb0",
    "Conv, below 2 % of the array": "#c05621",
    "MatMul": "#2f855a",
    "others": "#a0aec0",
}
LITTLE: Final = 0.02
"""Of the array: depthwise convolutions, and those of a few values."""
INCHES: Final = (11, 5)
DOTS_PER_INCH: Final = 100


@dataclass(frozen=True, slots=True)
class Costed:
    """A network with what was found of it."""

    name: str
    title: str
    found: Explanation

    def __str__(self) -> str:
        found = self.found
        rows_per_s = 2 / found.seconds
        share = found.npu_macs / found.macs
        return (
            f"{self.title:<46} {found.macs / 1e6:>7.0f} MMAC, {share:.1%} on the NPU in {found.npu_parts} parts; "
            f"a row {found.seconds * 1e3:.3f} ms, {found.joules * 1e3:.2f} mJ, {found.utilisation:.1%} of the array; "
            f"two NPUs {rows_per_s:.0f} rows/s"
        )


def networks() -> Iterator[Costed]:
    """ResNet-50 and the packaged models. Raises `WheelMissingError`."""
    backend = Fsd(FsdOptions())
    with tempfile.TemporaryDirectory() as folder:
        data = resnet50_int8()
        path = Path(folder) / "resnet50.onnx"
        path.write_bytes(data)
        model = Model(path, hashlib.sha256(data).hexdigest(), "onnx", ())
        yield Costed("resnet50", "ResNet-50, 224 x 224", backend.explain(model))
        for name, begin in PACKAGED.items():
            packaged = next(each for each in MEASURED if each.name.startswith(begin))
            yield Costed(name, packaged.name, backend.explain(packaged.stored(Path(folder))))


def measure(plots: Path | None = None) -> list[str]:
    """Print-ready lines; with `plots`, also pictures fsd-*.png in that folder."""
    lines = ["fsd, one row, predicted by the model of the chip; the host's layers are not in it"]
    for costed in networks():
        lines.append(str(costed))
        if plots is not None:
            path = plots / f"fsd-{costed.name}.png"
            draw(costed, path)
            lines.append(f"  {path}")
    return lines


def draw(costed: Costed, path: Path) -> None:
    """Time and use of the array by layer, those on the NPU, in the order in which they run."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - others run without the extra

    layers = [layer for layer in costed.found.layers if layer.place == "npu" and layer.seconds]
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    time, use = figure.subplots(2, 1, sharex=True)
    _bars(time, layers, [(layer.seconds or 0.0) * 1e6 for layer in layers])
    _bars(use, layers, [(layer.utilisation or 0.0) * 100 for layer in layers])
    time.set_ylabel("microseconds")
    use.set_ylabel("% of the array in use")
    use.set_ylim(0, 100)
    use.set_xlabel(f"{len(layers)} layers on the NPU that take time, as they run")
    found = costed.found
    figure.suptitle(
        f"{costed.title}: {found.seconds * 1e3:.3f} ms and {found.joules * 1e3:.2f} mJ a row on one NPU, "
        f"{found.utilisation:.1%} of the array in use (model, not measured)",
        fontsize="medium",
    )
    figure.legend(
        *time.get_legend_handles_labels(), loc="outside lower center", ncols=len(COLOURS), fontsize="small"
    )
    figure.savefig(path, metadata={"Software": None})


def _bars(axes: "Axes", layers: Sequence[ExplainedLayer], heights: Sequence[float]) -> None:
    for kind, colour in COLOURS.items():
        places = [place for place, layer in enumerate(layers) if _kind(layer) == kind]
        if places:
            axes.bar(places, [heights[place] for place in places], color=colour, width=0.9, label=kind)
    axes.grid(axis="y", alpha=0.3)
    axes.margins(x=0.01)


def _kind(layer: ExplainedLayer) -> str:
    if layer.operator in {"Conv", "ConvTranspose"}:
        return "Conv, below 2 % of the array" if (layer.utilisation or 0.0) < LITTLE else "Conv"
    return "MatMul" if layer.operator in {"MatMul", "Gemm"} else "others"


if __name__ == "__main__":
    for line in measure():
        print(line)
