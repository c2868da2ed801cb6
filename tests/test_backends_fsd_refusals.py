"""What the fsd backend refuses: with the code that puts the blame right, the node or input, and what to change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsd_backend import FRAME, calibration, frames, refusal, saved, small
from fsd_models import STORED, random_weights, small_network
from fsd_models import Model as Written
from onnx import ModelProto, TensorProto, helper, numpy_helper
from pydantic import ValidationError

from backends.fsd import Fsd, FsdOptions
from backends.kernel import (
    MODEL_INVALID,
    MODEL_NOT_FOUND,
    MODEL_UNSUPPORTED,
    OUT_OF_MEMORY,
    Model,
    Tensor,
)

__all__ = ["calibration", "small"]  # fixtures


# ---- models


def elsewhere() -> ModelProto:
    model = small_network()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    return model


def invented_operator() -> ModelProto:
    model = small_network()
    model.graph.node[1].op_type = "Relux"
    return model


def foreign_operator() -> ModelProto:
    model = small_network()
    model.graph.node[1].domain = "com.yourchip"
    model.opset_import.add(domain="com.yourchip", version=1)
    return model


def text_input() -> ModelProto:
    model = small_network()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    return model


def floats(*nodes: Any, inputs: dict[str, list[Any]]) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "floats",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name, sizes in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array((random_weights((4, 4, 1, 1)) / 127).astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sized_by_its_data() -> ModelProto:
    """A convolution over what is not zero in a frame."""
    make = helper.make_node
    return floats(
        make("NonZero", ["x"], ["places"]),
        make("Cast", ["places"], ["found"], to=TensorProto.FLOAT),
        make("Unsqueeze", ["found", "axes"], ["row"]),
        make("Conv", ["row", "narrow"], ["y"], name="over_the_places"),
        inputs={"x": ["rows", 4, 8, 8]},
    )


def with_axes(model: ModelProto) -> ModelProto:
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([0]), "axes"),
            numpy_helper.from_array(np.ones((4, 4, 1), np.float32), "narrow"),
        ]
    )
    return model


@pytest.mark.parametrize(
    ("build", "code", "words"),
    [
        (elsewhere, MODEL_UNSUPPORTED, "its weights lie in other files: save it as one file"),
        (invented_operator, MODEL_INVALID, "Relux"),
        (foreign_operator, MODEL_INVALID, "com.yourchip"),
        (text_input, MODEL_UNSUPPORTED, "input 'x' should be a tensor of numbers or booleans"),
        (
            lambda: with_axes(sized_by_its_data()),
            MODEL_UNSUPPORTED,
            "node 'over_the_places' (Conv): the shape of",
        ),
    ],
)
def test_a_model_that_cannot_run_is_refused_by_name(
    build: Callable[[], ModelProto], code: int, words: str, tmp_path: Path
) -> None:
    inputs = (Tensor("x", "FP32", (4, 8, 8)),) if build.__name__ == "<lambda>" else (FRAME,)
    data = Path(tmp_path / "set")
    data.mkdir()
    np.save(data / "x.npy", np.ones((2, *inputs[0].row_shape), np.float32))
    refused = refusal(saved(build(), tmp_path / "model.onnx", *inputs), calibration=data)
    assert refused.code == code, refused
    assert words in refused.text


def test_a_model_in_floats_without_data_is_refused_with_the_option_to_set(small: Model) -> None:
    refused = refusal(small)
    assert refused.code == MODEL_UNSUPPORTED
    assert refused.text == (
        "node 'a' (Conv) and the others are in floats: give typical rows in backends.options.calibration, "
        "or a model in int8 (QDQ)"
    )


def test_sizes_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    add = helper.make_node("Add", ["x", "z"], ["y"])
    model = floats(add, inputs={"x": ["rows", "wide"], "z": ["rows", "wide"]})
    asked = saved(model, tmp_path / "add.onnx", Tensor("x", "FP32", (4,)), Tensor("z", "FP32", (5,)))
    refused = refusal(asked)
    assert refused.code == MODEL_UNSUPPORTED
    assert "input 'z' makes dimension 'wide' 5, another input makes it 4" in refused.text


def test_a_tensor_beyond_the_memory_is_refused_with_its_node(tmp_path: Path) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="wide")
    model = floats(conv, inputs={"x": ["rows", 4, "height", "width"]})
    refused = refusal(
        saved(model, tmp_path / "m.onnx", Tensor("x", "FP32", (4, 512, 512))), arena_bytes=1 << 20
    )
    assert refused.code == OUT_OF_MEMORY
    assert refused.text == (
        "node 'wide' (Conv): 'y' of the shape [1, 4, 512, 512] has 4194304 bytes, the limit is 1048576: give it "
        "smaller inputs, or raise backends.options.arena_bytes"
    )


def test_a_file_that_is_not_there_is_not_found(small: Model) -> None:
    small.path.unlink()
    assert refusal(small).code == MODEL_NOT_FOUND


def test_another_format_is_refused(tmp_path: Path) -> None:
    model = Model(tmp_path / "m.tflite", "", "tflite", (FRAME,))
    assert "runs models of format onnx, not tflite" in refusal(model).text


def test_a_quantised_model_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    written = Written()
    frame = written.input("x", (4, 8, 8), **STORED)
    weights = written.constant(random_weights((2, 5, 3, 3)), 0.01)
    model = written.apply("Conv", [frame, weights], **STORED)
    asked = saved(written.finished(model), tmp_path / "m.onnx", Tensor("x", "INT8", (4, 8, 8)))
    refused = refusal(asked)
    assert refused.code in {MODEL_UNSUPPORTED, MODEL_INVALID}
    assert "n0" in refused.text


# ---- calibration data


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"z": np.ones((2, 3, 32, 32), np.float32)}, "input 'x' is missing, it has z"),
        (
            {"x": np.ones((2, 3, 32), np.float32)},
            "input 'x' has the shape [2, 3, 32], wanted is ['rows', 3, 32, 32]",
        ),
        ({"x": np.ones((0, 3, 32, 32), np.float32)}, "input 'x' has the shape [0, 3, 32, 32]"),
        ({"x": np.ones((), np.float32)}, "input 'x' has the shape []"),
        ({"x": np.ones((2, 3, 32, 32))}, "input 'x' is float64, wanted are finite float32"),
        (
            {"x": np.full((2, 3, 32, 32), np.nan, np.float32)},
            "input 'x' is float32, wanted are finite float32",
        ),
    ],
)
def test_data_that_do_not_fit_the_model_are_refused_with_the_input(
    arrays: dict[str, Any], words: str, small: Model, tmp_path: Path
) -> None:
    where = tmp_path / "rows.npz"
    np.savez(where, **arrays)
    refused = refusal(small, calibration=where)
    assert refused.code == MODEL_UNSUPPORTED
    assert refused.text.startswith(f"backends.options.calibration ({where}) does not fit the model: ")
    assert words in refused.text


def test_inputs_with_different_numbers_of_rows_are_refused(tmp_path: Path) -> None:
    make = helper.make_node
    model = floats(
        make("Add", ["x", "z"], ["a"]),
        make("Conv", ["a", "w"], ["y"]),
        inputs={"x": [1, 4, 8, 8], "z": [1, 4, 8, 8]},
    )
    tensors = [Tensor(name, "FP32", (4, 8, 8)) for name in ("x", "z")]
    np.savez(tmp_path / "r.npz", x=np.ones((2, 4, 8, 8), np.float32), z=np.ones((3, 4, 8, 8), np.float32))
    refused = refusal(saved(model, tmp_path / "m.onnx", *tensors), calibration=tmp_path / "r.npz")
    assert "its inputs have different numbers of rows: {'x': 2, 'z': 3}" in refused.text


@pytest.mark.parametrize("content", [None, b"", b"nothing of the kind", b"PK\3\4"])
def test_data_that_are_none_make_the_device_unusable(content: bytes | None, tmp_path: Path) -> None:
    where = tmp_path / "rows.npz"
    if content is not None:
        where.write_bytes(content)
    (device,) = Fsd(FsdOptions(calibration=where)).probe()
    assert device.why.startswith(f"backends.options.calibration = {where}: ")
    assert device.why.endswith("name a folder of INPUT.npy, or an .npz")


def test_an_empty_folder_and_a_single_array_are_no_data(tmp_path: Path) -> None:
    np.save(tmp_path / "x", frames(1))
    for where in (tmp_path / "x.npy", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        (device,) = Fsd(FsdOptions(calibration=where)).probe()
        assert "there is no array in it that has a name" in device.why


# ---- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": 1}, "device = 1 needs a driver"),
        ({"driver": "/lib/libfsd.so", "pace": True}, "pace = true is the emulator's"),
        ({"driver": "/lib/libfsd.so", "way": "reference"}, "way = 'reference' is the emulator's"),
        ({"threads": 0}, "greater than or equal to 1"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        FsdOptions.model_validate(options)
