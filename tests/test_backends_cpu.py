"""The cpu backend on models that fit, models that do not, and files that are no models."""

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaged_models import SENTENCES
from packaged_models import stored as stored_model
from pydantic import ValidationError

from backends import onnx_int8
from backends.contract import CHECKS, Check, Subject
from backends.cpu import Cpu, CpuOptions
from backends.datatypes import NUMPY_NAMES
from backends.kernel import BACKEND_UNUSABLE, Cost, KernelError, Model, Tensor
from backends.onnx_program import OnnxProgram
from backends.resident import resident_bytes
from backends.tiny_onnx import external_constant, one_node

if TYPE_CHECKING:
    from backends.kernel import Array

np = pytest.importorskip("numpy")
ROW = Tensor("x", "FP32", (4,))
WORDS = tuple(Tensor(name, "INT64", (16,)) for name in ("input_ids", "attention_mask", "token_type_ids"))


def stored(folder: Path, data: bytes, *inputs: Tensor, outputs: Sequence[str] = ()) -> Model:
    path = folder / "model"
    path.write_bytes(data)
    return Model(path, "0" * 64, "onnx", inputs or (ROW,), tuple(outputs))


def softmax(*dimensions: int | str, datatype: str = "FP32") -> bytes:
    return one_node("Softmax", {"x": (datatype, dimensions)}, (datatype, dimensions))


def load(model: Model, device: str = "cpu") -> OnnxProgram:
    return Cpu(CpuOptions()).load(model, device)


def refusal(model: Model, device: str = "cpu") -> tuple[int, str]:
    with pytest.raises(KernelError) as caught:
        load(model, device)
    return caught.value.code, caught.value.text


def outputs_of(program: OnnxProgram, rows: int, **inputs: "Array") -> "Array":
    output = program.outputs[0]
    given: Array = np.full((rows, *output.row_shape), 7, NUMPY_NAMES[output.datatype])
    program.run(inputs, {output.name: given})
    return given


def test_a_cost_that_is_known_is_not_measured_again(tmp_path: Path) -> None:
    model = stored(tmp_path, softmax("n", 4))
    known = Cost({1: 0.125, 2: 0.25}, {1: 3.5}, bytes_resident=5_000, cancel_bound_s=0.75)
    program = load(replace(model, known=known))
    assert program.cost == known
    assert program.max_batch is None
    assert load(replace(model, known=Cost({1: 0.125}))).max_batch == 1
    assert np.allclose(outputs_of(program, 3, x=np.ones((3, 4), "f4")), 0.25)


def test_rows_can_be_batched_where_the_first_dimension_is_free(tmp_path: Path) -> None:
    program = load(stored(tmp_path, softmax("n", 4)))
    assert program.max_batch is None
    assert {1, 2, 4} <= set(program.cost.run_s)
    assert program.cost.cancel_bound_s is not None
    assert np.allclose(outputs_of(program, 3, x=np.ones((3, 4), "f4")), 0.25)


def test_a_model_of_batch_one_runs_row_by_row(tmp_path: Path) -> None:
    program = load(stored(tmp_path, softmax(1, 4)))
    assert program.max_batch == 1
    assert set(program.cost.run_s) == {1}
    assert np.allclose(outputs_of(program, 1, x=np.ones((1, 4), "f4")), 0.25)


def test_a_model_that_wants_eight_rows_at_once_is_refused(tmp_path: Path) -> None:
    code, text = refusal(stored(tmp_path, softmax(8, 4)))
    assert code == 132
    assert "'x' takes 8 rows at once" in text


def test_a_batch_that_the_graph_cannot_take_means_row_by_row(tmp_path: Path) -> None:
    to_one_row = one_node("Reshape", {"x": ("FP32", ("n", 4)), "to": ("INT64", (2,))}, ("FP32", ("a", "b")))
    model = stored(tmp_path, to_one_row, ROW, Tensor("to", "INT64", (2,), shared=True))
    # zeros ask to keep both dimensions, so the output has as many rows as the input
    assert load(model).max_batch is None
    one_sum = one_node("ReduceSum", {"x": ("FP32", ("n", 4))}, ("FP32", (1, 1)))
    program = load(stored(tmp_path, one_sum))
    assert program.max_batch == 1
    assert outputs_of(program, 1, x=np.ones((1, 4), "f4")).tolist() == [[4.0]]


def test_an_output_without_rows_belongs_to_the_one_row(tmp_path: Path) -> None:
    turned = one_node("Transpose", {"x": ("FP32", ("n", 4))}, ("FP32", (4, "n")))
    program = load(stored(tmp_path, turned))
    assert program.max_batch == 1
    assert program.outputs[0].row_shape == (4, 1)
    values = np.arange(4, dtype="f4").reshape(1, 4)
    assert outputs_of(program, 1, x=values).ravel().tolist() == [0, 1, 2, 3]


def test_a_shared_input_is_the_same_for_every_row(tmp_path: Path) -> None:
    add = one_node("Add", {"x": ("FP32", ("n", 4)), "bias": ("FP32", (4,))}, ("FP32", ("n", 4)))
    bias = Tensor("bias", "FP32", (4,), shared=True)
    program = load(stored(tmp_path, add, bias, ROW))  # the order of the task does not matter
    assert [tensor.name for tensor in program.inputs] == ["x", "bias"]
    assert program.max_batch is None
    given = outputs_of(program, 2, x=np.ones((2, 4), "f4"), bias=np.full(4, 2, "f4"))
    assert given.tolist() == [[3.0] * 4] * 2


def test_free_dimensions_take_the_sizes_of_the_task(tmp_path: Path) -> None:
    data = softmax("n", "channels", "length")
    program = load(stored(tmp_path, data, Tensor("x", "FP32", (2, 3))))
    assert program.outputs[0].row_shape == (2, 3)
    assert program.max_batch is None
    assert program._runs.session.get_inputs()[0].shape == ["n", 2, 3]
    square = load(stored(tmp_path, softmax("n", "n")))  # the rows' own name is not bound
    assert square.max_batch is None
    twice = one_node("Add", {"x": ("FP32", ("n", "l")), "y0": ("FP32", ("n", "l"))}, ("FP32", ("n", "l")))
    code, text = refusal(stored(tmp_path, twice, ROW, Tensor("y0", "FP32", (5,))))
    assert code == 132
    assert "makes dimension 'l' 5, another input makes it 4" in text


def test_dimensions_called_question_mark_are_free_each_by_itself(tmp_path: Path) -> None:
    program = load(stored(tmp_path, softmax("n", "?", "?"), Tensor("x", "FP32", (2, 3))))
    assert program.outputs[0].row_shape == (2, 3)
    assert program.max_batch is None


@pytest.mark.parametrize(("datatype", "dtype"), [("FP16", "f2"), ("INT8", "i1")])
def test_small_datatypes_pass_through(tmp_path: Path, datatype: str, dtype: str) -> None:
    data = one_node("Identity", {"x": (datatype, ("n", 4))}, (datatype, ("n", 4)))
    program = load(stored(tmp_path, data, Tensor("x", datatype, (4,))))
    values = np.array([[1, -2, 3, 100]], dtype)
    assert np.array_equal(outputs_of(program, 1, x=values), values)


def test_nan_is_a_result_like_any_other(tmp_path: Path) -> None:
    program = load(stored(tmp_path, softmax("n", 4)))
    assert np.isnan(outputs_of(program, 1, x=np.full((1, 4), np.nan, "f4"))).all()


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ((Tensor("x", "FP64", (4,)),), "input 'x' is given as FP64, the model takes FP32"),
        ((Tensor("x", "FP32", (5,)),), "input 'x' is given with shape [any, 5], the model takes [n, 4]"),
        ((Tensor("x", "FP32", (4, 1)),), "input 'x' is given with shape [any, 4, 1], the model takes [n, 4]"),
        ((Tensor("z", "FP32", (4,)),), "input 'x' is missing; the model takes x"),
        ((ROW, Tensor("z", "FP32", (4,))), "input 'z' is not one of the model's: x"),
        ((Tensor("x", "FP32", (2, 4), shared=True),), "every input is shared"),
    ],
)
def test_inputs_that_do_not_fit_are_named_with_what_would(
    tmp_path: Path, inputs: tuple[Tensor, ...], says: str
) -> None:
    code, text = refusal(stored(tmp_path, softmax("n", 4), *inputs))
    assert code == 132
    assert says in text


def test_outputs_that_do_not_exist_devices_and_formats_are_refused(tmp_path: Path) -> None:
    code, text = refusal(stored(tmp_path, softmax("n", 4), outputs=["z"]))
    assert (code, text) == (132, "output 'z' is not one of the model's: y")
    assert refusal(stored(tmp_path, softmax("n", 4)), device="cuda:0")[0] == 1020
    good = stored(tmp_path, softmax("n", 4))
    assert refusal(Model(good.path, good.sha256, "tflite", good.inputs))[0] == 132
    assert refusal(Model(tmp_path / "gone", good.sha256, "onnx", good.inputs))[0] == 130


def test_strings_and_shapes_that_depend_on_the_data_are_refused(tmp_path: Path) -> None:
    words = one_node("Identity", {"x": ("STRING", ("n", 4))}, ("STRING", ("n", 4)))
    code, text = refusal(stored(tmp_path, words))
    assert code == 132
    assert "tensor(string)" in text
    found = one_node("NonZero", {"x": ("FP32", ("n", 4))}, ("INT64", (2, "k")))
    code, text = refusal(stored(tmp_path, found))
    assert code == 132
    assert "depends on the data" in text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a model at all" * 100,
        softmax("n", 4)[:-9],
        one_node("Nope", {"x": ("FP32", (1, 4))}, ("FP32", (1, 4))),
    ],
    ids=["empty", "junk", "cut off", "no such operator"],
)
def test_files_that_are_no_models_are_invalid(tmp_path: Path, data: bytes) -> None:
    code, text = refusal(stored(tmp_path, data))
    assert code == 133
    assert text.startswith("onnxruntime refuses the model: ")


@pytest.mark.parametrize("kind", ["beside", "hard link", "absolute", "parent"])
def test_a_model_is_its_own_bytes_and_nothing_else(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(4, "f4").tobytes())
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "w.bin").hardlink_to(secret)
    location = {"beside": "w.bin", "hard link": "w.bin", "absolute": str(secret), "parent": "../secret.bin"}[
        kind
    ]
    data = one_node(
        "Add",
        {"x": ("FP32", ("n", 4))},
        ("FP32", ("n", 4)),
        constants=external_constant("w", "FP32", [4], location),
        constant_names=["w"],
    )
    monkeypatch.chdir(folder)
    for optimisation in (
        "all",
        "disabled",
    ):  # without optimisation onnxruntime would look in the working folder
        backend = Cpu(CpuOptions(optimisation=optimisation))
        with pytest.raises(KernelError) as caught:
            backend.load(stored(folder, data), "cpu")
        assert caught.value.code == 133


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_an_int8_model_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    check(Subject("cpu", stored_model(SENTENCES, "model.onnx", tmp_path, *WORDS)))


def test_an_int8_model_gives_what_the_bare_runtime_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = stored_model(SENTENCES, "model.onnx", tmp_path, *WORDS)
    program = load(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.add_free_dimension_override_by_name("sequence", 16)
    bare = onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    words = np.random.default_rng(3).integers(1000, 20000, (4, 16))
    given = {"input_ids": words, "attention_mask": np.ones_like(words), "token_type_ids": 0 * words}
    assert outputs_of(program, 4, **given).tobytes() == bare.run(None, given)[0].tobytes()
    assert program.max_batch is None
    assert program.cost.bytes_resident is not None
    assert program.cost.bytes_resident > model.path.stat().st_size


@pytest.mark.parametrize(("saturating", "entry"), [(True, "1"), (False, None)])
def test_int8_is_slowed_down_only_where_the_processor_would_cut_its_sums(
    saturating: bool, entry: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backends.cpu.saturates", lambda _: saturating)
    assert precision_of(load(stored_model(SENTENCES, "model.onnx", tmp_path, *WORDS))) == entry


def precision_of(program: OnnxProgram) -> str | None:
    try:
        entry = program._runs.session.get_session_options().get_session_config_entry(
            "session.x64quantprecision"
        )
    except RuntimeError:  # it was not set
        return None
    return str(entry)


def test_this_processor_sums_without_loss_or_is_known_not_to() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    flags = Path("/proc/cpuinfo").read_text()
    assert onnx_int8.saturates(onnxruntime) is ("avx2" in flags and "vnni" not in flags)


def test_half_precision_is_computed(tmp_path: Path) -> None:
    program = load(stored(tmp_path, softmax("n", 4, datatype="FP16"), Tensor("x", "FP16", (4,))))
    assert program.outputs == (Tensor("y", "FP16", (4,)),)
    values = np.array([[0, 1, 2, 3], [3, 3, 3, 3]], "f2")
    powers = np.exp(values.astype("f8"))
    assert np.allclose(outputs_of(program, 2, x=values), powers / powers.sum(-1, keepdims=True), atol=1e-3)


def test_a_batch_that_needs_more_than_the_arena_is_out_of_memory_and_the_next_one_runs(
    tmp_path: Path,
) -> None:
    data = one_node("MatMul", {"x": ("FP32", ("n", 256)), "w": ("FP32", (256, 256))}, ("FP32", ("n", 256)))
    model = stored(tmp_path, data, Tensor("x", "FP32", (256,)), Tensor("w", "FP32", (256, 256), shared=True))
    program = Cpu(CpuOptions(arena_bytes=4 << 20)).load(model, "cpu")
    weights = np.eye(256, dtype="f4")
    with pytest.raises(KernelError, match="Available memory of") as caught:
        outputs_of(program, 10_000, x=np.ones((10_000, 256), "f4"), w=weights)
    assert caught.value.code == 1023
    assert np.array_equal(outputs_of(program, 2, x=np.ones((2, 256), "f4"), w=weights), np.ones((2, 256)))


def test_each_program_has_an_arena_of_its_own(tmp_path: Path) -> None:
    data = one_node("MatMul", {"x": ("FP32", ("n", 256)), "w": ("FP32", (256, 256))}, ("FP32", ("n", 256)))
    model = stored(tmp_path, data, Tensor("x", "FP32", (256,)), Tensor("w", "FP32", (256, 256), shared=True))
    backend = Cpu(CpuOptions(arena_bytes=8 << 20))
    first, second = backend.load(model, "cpu"), backend.load(model, "cpu")
    rows, weights = np.ones((3000, 256), "f4"), np.eye(256, dtype="f4")
    for program in (first, second):
        assert np.array_equal(outputs_of(program, 3000, x=rows, w=weights), rows)
    second.close()
    assert np.array_equal(outputs_of(first, 3000, x=rows, w=weights), rows)


def test_intermediate_results_of_a_closed_program_go_back_to_the_car(tmp_path: Path) -> None:
    data = one_node("MatMul", {"x": ("FP32", ("n", 256)), "w": ("FP32", (256, 256))}, ("FP32", ("n", 256)))
    model = stored(tmp_path, data, Tensor("x", "FP32", (256,)), Tensor("w", "FP32", (256, 256), shared=True))
    load(model).close()  # what the runtime itself takes stays
    before_bytes = resident_bytes()
    program = load(model)
    outputs_of(program, 50_000, x=np.ones((50_000, 256), "f4"), w=np.eye(256, dtype="f4"))
    assert resident_bytes() - before_bytes > 50_000 * 1024
    program.close()
    assert resident_bytes() - before_bytes < 50_000 * 1024 / 4


def test_what_a_closed_program_held_goes_back_to_the_car(tmp_path: Path) -> None:
    model = stored_model(SENTENCES, "model.onnx", tmp_path, *WORDS)
    load(model).close()  # what the runtime itself takes stays
    before_bytes = resident_bytes()
    program = load(model)
    held_bytes = resident_bytes() - before_bytes
    assert program.cost.bytes_resident == pytest.approx(held_bytes, rel=0.1)
    program.close()
    assert resident_bytes() - before_bytes < held_bytes / 10


# cores


def test_runs_stay_on_the_cores_that_they_are_given_and_the_rest_of_the_worker_does_not(
    tmp_path: Path,
) -> None:
    """The thread that hears a cancel may use the others."""
    model = stored(tmp_path, softmax("n", 4))
    core = min(os.sched_getaffinity(0))
    seen: list[set[int]] = []

    def load_and_look() -> None:
        Cpu(CpuOptions(cores=(core,))).load(model, "cpu")
        seen.append(os.sched_getaffinity(0))

    before = os.sched_getaffinity(0)
    worker = threading.Thread(target=load_and_look)
    worker.start()
    worker.join()
    assert seen == [{core}]
    assert os.sched_getaffinity(0) == before


def test_a_core_that_is_not_there_makes_the_device_unusable_and_says_which_there_are() -> None:
    backend = Cpu(CpuOptions(cores=(4095,)))
    (device,) = backend.probe()
    here = sorted(os.sched_getaffinity(0))
    assert device.why == f"cores = [4095] are not among those that the agent may use, {here}"
    with pytest.raises(KernelError, match="4095") as caught:
        backend.load(Model(Path("any"), "0" * 64, "onnx", (ROW,)), "cpu")
    assert caught.value.code == BACKEND_UNUSABLE


def test_two_threads_are_not_put_on_one_core() -> None:
    with pytest.raises(ValidationError, match="threads = 2 would wait for one another on 1 of `cores`"):
        CpuOptions(threads=2, cores=(0, 0))
