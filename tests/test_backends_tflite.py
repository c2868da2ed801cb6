"""The tflite backend, on whichever runtime is installed: models that fit, models that do not, no models."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaged_models import FACES, WAKE_WORDS, stored
from workers import may_read, started

from backends import tflite
from backends.contract import CHECKS, Check, Subject, own_model
from backends.kernel import KernelError, Model, Tensor
from backends.tflite import Tflite, TfliteOptions
from backends.tflite_program import TfliteProgram
from backends.tiny_tflite import ADD, CUSTOM, DEQUANTIZE, SOFTMAX, TinyTensor, one_operator

if TYPE_CHECKING:
    from backends.kernel import Array

np = pytest.importorskip("numpy")
if Tflite(TfliteOptions()).probe()[0].why:
    pytest.skip("neither tflite-runtime nor ai-edge-litert works here", allow_module_level=True)

ROW = Tensor("x", "FP32", (4,))
HEARD = Tensor("input_audio", "INT8", (3, 40))
FACE = Tensor("input_1", "FP32", (192, 192, 3))
CHECKED = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)


def softmax(*dimensions: int) -> bytes:
    return one_operator(SOFTMAX, [TinyTensor("x", "FP32", dimensions)], TinyTensor("y", "FP32", dimensions))


def add(datatype: str, **scale: float) -> bytes:
    quantised: dict[str, Any] = {**scale}
    x = TinyTensor("x", datatype, (-1, 4), **quantised)
    bias = TinyTensor("bias", datatype, (4,), **quantised)
    return one_operator(ADD, [x, bias], TinyTensor("y", datatype, (-1, 4), **quantised))


def written(folder: Path, data: bytes, *inputs: Tensor, outputs: Sequence[str] = ()) -> Model:
    path = folder / "model.tflite"
    path.write_bytes(data)
    return Model(path, "0" * 64, "tflite", inputs or (ROW,), tuple(outputs))


def load(model: Model) -> TfliteProgram:
    return Tflite(TfliteOptions()).load(model, "cpu")


def refusal(model: Model, device: str = "cpu") -> tuple[int, str]:
    with pytest.raises(KernelError) as caught:
        Tflite(TfliteOptions()).load(model, device)
    return caught.value.code, caught.value.text


def outputs_of(program: TfliteProgram, rows: int, **inputs: "Array") -> "dict[str, Array]":
    outputs = {t.name: np.full((rows, *t.row_shape), 7, tflite_dtype(t)) for t in program.outputs}
    program.run(inputs, outputs)
    return outputs


def tflite_dtype(tensor: Tensor) -> str:
    return {"FP32": "f4", "FP16": "f2", "INT8": "i1", "UINT8": "u1", "INT32": "i4"}[tensor.datatype]


def bare(model: Model) -> Any:
    """The runtime's own interpreter, without anything of ours."""
    interpreter = Tflite(TfliteOptions())._interpreter()(model_path=str(model.path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def bare_outputs(interpreter: Any, *inputs: "Array") -> "list[Array]":
    for details, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(details["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()]


@CHECKED
def test_it_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    check(Subject("tflite", own_model(tmp_path, "tflite")))


@CHECKED
def test_it_keeps_the_contract_with_a_face_model(check: Check, tmp_path: Path) -> None:
    check(Subject("tflite", stored(FACES, "face_landmark.tflite", tmp_path, FACE)))


@CHECKED
def test_it_keeps_the_contract_with_an_int8_model_that_has_variables(check: Check, tmp_path: Path) -> None:
    check(Subject("tflite", stored(WAKE_WORDS, "hey_mycroft.tflite", tmp_path, HEARD)))


def test_a_face_model_gives_what_the_bare_interpreter_gives(tmp_path: Path) -> None:
    model = stored(FACES, "face_landmark.tflite", tmp_path, FACE)
    program, interpreter = load(model), bare(model)
    for seed in range(3):
        image = np.random.default_rng(seed).random((1, 192, 192, 3), np.float32)
        ours = outputs_of(program, 1, input_1=image)
        theirs = bare_outputs(interpreter, image)
        assert [a.tobytes() for a in ours.values()] == [a.tobytes() for a in theirs]
    assert program.max_batch == 1
    assert program.cost.cancel_bound_s is None
    assert program.cost.run_s[1] > 0
    assert program.cost.bytes_resident is not None
    assert program.cost.bytes_resident >= model.path.stat().st_size


async def test_a_worker_gives_what_the_bare_interpreter_gives(tmp_path: Path) -> None:
    model = stored(FACES, "face_landmark.tflite", tmp_path, FACE)
    image = np.random.default_rng(7).random((1, 192, 192, 3), np.float32)
    async with started("tflite", limits=may_read(model)) as worker:
        program = await worker.load(model)
        with worker.slot(program, 1) as slot:
            slot.inputs[0][:] = image.tobytes()
            await worker.run(slot)
            theirs = bare_outputs(bare(model), image)
            assert [bytes(view) for view in slot.outputs] == [array.tobytes() for array in theirs]


def test_every_row_begins_with_the_variables_of_the_file(tmp_path: Path) -> None:
    model = stored(WAKE_WORDS, "hey_mycroft.tflite", tmp_path, HEARD)
    program = load(model)
    assert [(t.name, t.datatype, t.row_shape) for t in program.outputs] == [("dense_1", "UINT8", (1,))]
    rows = np.random.default_rng(1).integers(-128, 128, (400, 1, 3, 40)).astype(np.int8)
    ours = [outputs_of(program, 1, input_audio=row)["dense_1"].item() for row in rows]
    assert ours == [bare_outputs(bare(model), row)[0].item() for row in rows]
    remembering = bare(model)
    assert ours != [bare_outputs(remembering, row)[0].item() for row in rows]


def test_rows_are_batched_where_the_file_leaves_their_number_free(tmp_path: Path) -> None:
    program = load(written(tmp_path, softmax(-1, 4)))
    assert program.max_batch is None
    assert {1, 2, 4} <= set(program.cost.run_s)
    for rows in (3, 1, 5):
        assert np.allclose(outputs_of(program, rows, x=np.ones((rows, 4), "f4"))["y"], 0.25)


def test_a_file_with_one_row_runs_row_by_row(tmp_path: Path) -> None:
    program = load(written(tmp_path, softmax(1, 4)))
    assert program.max_batch == 1
    assert set(program.cost.run_s) == {1}


def test_free_dimensions_take_the_sizes_of_the_task(tmp_path: Path) -> None:
    program = load(written(tmp_path, softmax(-1, -1), Tensor("x", "FP32", (9,))))
    assert program.outputs == (Tensor("y", "FP32", (9,)),)
    assert np.allclose(outputs_of(program, 2, x=np.ones((2, 9), "f4"))["y"], 1 / 9)


def test_a_shared_input_is_the_same_for_every_row(tmp_path: Path) -> None:
    bias = Tensor("bias", "FP32", (4,), shared=True)
    program = load(written(tmp_path, add("FP32"), bias, ROW))  # the order of the task does not matter
    assert [tensor.name for tensor in program.inputs] == ["x", "bias"]
    given = outputs_of(program, 2, x=np.ones((2, 4), "f4"), bias=np.full(4, 2, "f4"))["y"]
    assert given.tolist() == [[3.0] * 4] * 2


@pytest.mark.parametrize(("datatype", "zero_point"), [("INT8", -3), ("UINT8", 5)])
def test_quantised_tensors_travel_as_the_integers_of_the_file(
    tmp_path: Path, datatype: str, zero_point: int
) -> None:
    x, bias = Tensor("x", datatype, (4,)), Tensor("bias", datatype, (4,), shared=True)
    program = load(written(tmp_path, add(datatype, scale=0.5, zero_point=zero_point), x, bias))
    assert program.outputs == (Tensor("y", datatype, (4,)),)
    dtype = tflite_dtype(x)
    row, offset = np.array([[10, 20, 30, 40]], dtype), np.full(4, 7, dtype)
    assert outputs_of(program, 1, x=row, bias=offset)["y"].tolist() == [
        [value + 7 - zero_point for value in (10, 20, 30, 40)]
    ]


def test_float16_goes_in_as_it_is(tmp_path: Path) -> None:
    data = one_operator(DEQUANTIZE, [TinyTensor("x", "FP16", (1, 4))], TinyTensor("y", "FP32", (1, 4)))
    program = load(written(tmp_path, data, Tensor("x", "FP16", (4,))))
    values = np.array([[0.5, -2.0, 65504.0, 1e-7]], "f2")
    assert np.array_equal(outputs_of(program, 1, x=values)["y"], values.astype("f4"))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ((Tensor("x", "FP64", (4,)),), "input 'x' is given as FP64, the model takes FP32"),
        ((Tensor("x", "FP32", (5,)),), "input 'x' is given with shape [any, 5], the model takes [any, 4]"),
        ((Tensor("z", "FP32", (4,)),), "input 'x' is missing; the model takes x"),
        ((ROW, Tensor("z", "FP32", (4,))), "input 'z' is not one of the model's: x"),
    ],
)
def test_inputs_that_do_not_fit_are_named_with_what_would(
    tmp_path: Path, inputs: tuple[Tensor, ...], says: str
) -> None:
    code, text = refusal(written(tmp_path, softmax(-1, 4), *inputs))
    assert (code, text) == (132, says)


def test_outputs_devices_and_formats_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    code, text = refusal(written(tmp_path, softmax(-1, 4), outputs=["z"]))
    assert (code, text) == (132, "output 'z' is not one of the model's: y")
    good = written(tmp_path, softmax(-1, 4))
    assert refusal(good, device="npu:0")[0] == 1020
    assert refusal(Model(good.path, good.sha256, "onnx", good.inputs))[0] == 132
    assert refusal(Model(tmp_path / "gone", good.sha256, "tflite", good.inputs))[0] == 130


@pytest.mark.parametrize("name", ["FlexErf", "OurOwnOperator"])
def test_operators_that_the_runtime_has_not_are_refused(tmp_path: Path, name: str) -> None:
    data = one_operator(
        CUSTOM, [TinyTensor("x", "FP32", (1, 4))], TinyTensor("y", "FP32", (1, 4)), custom_code=name
    )
    code, text = refusal(written(tmp_path, data))
    assert code == 132
    assert "Select TensorFlow op" in text or name in text


def test_a_real_model_with_custom_operators_is_refused_by_their_name(tmp_path: Path) -> None:
    code, text = refusal(stored(FACES, "face_landmark_with_attention.tflite", tmp_path, FACE))
    assert code == 132
    assert "Landmarks2TransformMatrix" in text


def test_strings_and_what_an_operator_does_not_take_are_refused(tmp_path: Path) -> None:
    words = one_operator(ADD, [TinyTensor("x", "BYTES", (1, 4))] * 2, TinyTensor("y", "BYTES", (1, 4)))
    code, text = refusal(written(tmp_path, words))
    assert code == 132
    assert "only numbers and booleans run here" in text
    bias = Tensor("bias", "FP64", (4,), shared=True)
    code, text = refusal(written(tmp_path, add("FP64"), Tensor("x", "FP64", (4,)), bias))
    assert code == 132
    assert "FLOAT64 is unsupported" in text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a model at all" * 100,
        softmax(1, 4)[:40],
        b"\xff\xff\xff\x7fTFL3" + bytes(100),
        b"\x08\0\0\0TFL3",
    ],
    ids=["empty", "junk", "cut off", "far away", "header only"],
)
def test_files_that_are_no_models_are_invalid(tmp_path: Path, data: bytes) -> None:
    code, text = refusal(written(tmp_path, data))
    assert code == 133
    assert text.startswith("no TFLite file: ")


def test_a_model_of_another_format_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    code, text = refusal(written(tmp_path, softmax(1, 4).replace(b"TFL3", b"ONNX")))
    assert (code, text) == (133, "no TFLite file: bytes 4 to 8 are b'ONNX', a TFLite file has b'TFL3'")


def test_without_a_runtime_the_device_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite, "RUNTIMES", {"no-such-runtime": "no_such_runtime"})
    (device,) = Tflite(TfliteOptions()).probe()
    assert device.why == (
        "neither tflite-runtime nor ai-edge-litert is installed; pip install 'parkwatt[tflite]'"
    )


def test_tflite_runtime_beside_numpy_2_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if int(np.__version__.partition(".")[0]) < 2:
        pytest.skip("numpy 1 is installed here")
    record = tmp_path / "tflite_runtime-2.14.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.14.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    backend = Tflite(TfliteOptions())
    assert not backend.probe()[0].why
    assert backend.version.startswith("ai-edge-litert ")
    monkeypatch.setattr(tflite, "RUNTIMES", {"tflite-runtime": "tflite_runtime"})
    (device,) = Tflite(TfliteOptions()).probe()
    assert device.why.startswith(f"tflite-runtime 2.14.0: needs numpy<2, numpy {np.__version__} is installed")


def test_the_supervisor_imports_no_runtime_with_it() -> None:
    code = """
import sys
from backends import registry
registry.validate_options("tflite", {"threads": 1})
assert not {"numpy", "tflite_runtime", "ai_edge_litert"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
