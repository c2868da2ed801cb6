"""`parkwatt backends explain`: where each layer of a model runs, why, and what it is modelled to cost."""

import json
from pathlib import Path
from typing import Any

import pytest
from fsd_backend import FRAME, saved
from fsd_models import STORED, random_weights, small_network
from fsd_models import Model as Written
from onnx import ModelProto
from running import parkwatt

from agent.explanation import described
from backends.contract import own_model
from backends.explanation import Explanation
from backends.fsd import Fsd, FsdOptions
from backends.kernel import Tensor


def depthwise_and_gate() -> ModelProto:
    """A wide convolution, a depthwise one, and a sigmoid."""
    written = Written()
    frame = written.input("x", (96, 28, 28), **STORED)
    wide = written.apply(
        "Conv", [frame, written.constant(random_weights((96, 96, 3, 3)), 0.01)], **STORED, pads=[1, 1, 1, 1]
    )
    deep = written.apply(
        "Conv",
        [wide, written.constant(random_weights((96, 1, 3, 3)), 0.01)],
        **STORED,
        group=96,
        pads=[1, 1, 1, 1],
    )
    return written.finished(written.apply("Sigmoid", [deep], **STORED))


def explained(model: ModelProto, folder: Path, *inputs: Tensor) -> Explanation:
    return Fsd(FsdOptions()).explain(saved(model, folder / "model.onnx", *inputs))


def test_each_layer_has_its_place_its_cost_and_the_reason_for_the_host(tmp_path: Path) -> None:
    found = explained(depthwise_and_gate(), tmp_path)
    wide, deep, gate, *rest = found.layers
    assert [layer.place for layer in found.layers] == ["npu", "npu", "host", "host"]
    assert wide.utilisation is not None
    assert deep.utilisation is not None
    assert wide.utilisation > 0.8
    assert deep.utilisation < 0.01
    assert wide.macs == 96 * 96 * 9 * 28 * 28
    assert wide.macs == 96 * deep.macs
    assert (gate.seconds, gate.joules, gate.utilisation) == (None, None, None)
    assert gate.why.startswith("the NPU has no such operator: run it on the host")
    assert [layer.why for layer in rest] == ["it makes integers of what the host has computed"]


def test_sums_are_those_of_the_layers_and_say_that_they_are_modelled(tmp_path: Path) -> None:
    found = explained(depthwise_and_gate(), tmp_path)
    assert found.source == "model"
    assert found.npu_parts == 1
    assert found.seconds == pytest.approx(sum(layer.seconds or 0 for layer in found.layers))
    assert found.joules == pytest.approx(sum(layer.joules or 0 for layer in found.layers))
    assert found.npu_macs == found.macs == sum(layer.macs for layer in found.layers)
    assert "nothing here was measured" in found.notes[0]


def test_floats_are_explained_without_data_and_the_note_says_so(tmp_path: Path) -> None:
    found = explained(small_network(), tmp_path)
    assert {layer.operator for layer in found.layers if layer.place == "npu"} >= {"Conv", "Add", "Gemm"}
    assert any("made-up ranges" in note for note in found.notes)


def test_what_a_model_multiplies_on_the_host_counts_for_its_share(tmp_path: Path) -> None:
    written = Written()
    frame = written.input("x", (4, 8, 8), **STORED)
    floats = written.raw(random_weights((2, 4, 3, 3)).astype("float32"))
    found = explained(written.finished(written.apply("Conv", [frame, floats], **STORED)), tmp_path)
    assert (found.npu_macs, found.macs) == (0, 2 * 4 * 9 * 36)
    assert "input 2 is not quantised" in found.layers[0].why


def test_a_model_without_products_has_nothing_for_the_npu(tmp_path: Path) -> None:
    found = Fsd(FsdOptions()).explain(own_model(tmp_path))
    assert [layer.place for layer in found.layers] == ["host"]
    assert "nothing for the NPU's array" in found.layers[0].why
    assert "0 of 1 layers in 0 parts" in "\n".join(described(found))


def test_the_table_is_for_people_and_the_document_for_programs(tmp_path: Path) -> None:
    model = saved(depthwise_and_gate(), tmp_path / "model.onnx")
    text = parkwatt("backends", "explain", model.path, "--backend", "fsd")
    document = parkwatt("backends", "explain", model.path, "--backend", "fsd", "--json")
    assert (text.returncode, document.returncode) == (0, 0), text.stderr + document.stderr
    lines = text.stdout.splitlines()
    assert lines[0].split()[:4] == ["layer", "operator", "where", "MMAC"]
    assert lines[1].split()[1:4] == ["Conv", "npu", "65.028"]
    assert "on the NPU: 2 of 4 layers in 1 parts, 100.0% of" in text.stdout
    assert "by model:" in text.stdout
    found: dict[str, Any] = json.loads(document.stdout)
    assert found["source"] == "model"
    assert [layer["place"] for layer in found["layers"]] == ["npu", "npu", "host", "host"]


def free_network() -> ModelProto:
    model = small_network()
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"size{axis}"
    return model


def test_free_sizes_have_to_be_given(tmp_path: Path) -> None:
    path = saved(free_network(), tmp_path / "model.onnx", FRAME).path
    without = parkwatt("backends", "explain", path, "--backend", "fsd")
    assert without.returncode == 1
    assert without.stderr == (
        f"parkwatt: {path}: the file leaves sizes of input 'x' free: x:FP32:3xsize2xsize3; give it in numbers\n"
    )
    given = parkwatt("backends", "explain", path, "--backend", "fsd", "--input", "x:FP32:3x64x64")
    assert given.returncode == 0, given.stderr


@pytest.mark.parametrize(
    ("backend", "name", "words"),
    [
        ("cpu", "model.onnx", "backend 'cpu' cannot explain models: take fsd"),
        ("cpx", "model.onnx", "backend 'cpx' is not known"),
        ("fsd", "none.onnx", "No such file"),
        ("fsd", "text.onnx", "it is no ONNX model"),
    ],
)
def test_what_cannot_be_explained_is_one_line(backend: str, name: str, words: str, tmp_path: Path) -> None:
    saved(small_network(), tmp_path / "model.onnx")
    (tmp_path / "text.onnx").write_text("this is no model\n")
    done = parkwatt("backends", "explain", tmp_path / name, "--backend", backend)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert words in line


def test_listing_backends_keeps_its_options() -> None:
    done = parkwatt("backends", "--options", "fsd")
    assert done.returncode == 0
    assert 'way = "fast"  # "fast" or "reference"' in done.stdout
    assert "calibration = null" in done.stdout
