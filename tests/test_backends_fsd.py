"""The fsd backend: what it computes, where, what that costs, and how it is cancelled."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsd_backend import FRAME, Array, calibration, frames, loaded, run, saved, small
from fsd_models import STORED, random_weights, small_network
from fsd_models import Model as Written
from onnx import ModelProto, TensorProto, helper, numpy_helper
from workers import may_read, started

from backends.contract import CHECKS, Check, Subject, own_model
from backends.fsd_calibration import Calibration
from backends.fsd_loading import Cut, cut, taken
from backends.fsd_npu_part import Lane, NpuPart
from backends.fsd_partition import Place
from backends.kernel import Cancelled, Model, Tensor
from backends.onnx_session import runtime_imported
from firmware_shims.clock import boottime_ns
from firmware_shims.fsd.demand import modelled
from firmware_shims.fsd.interface import Binding, Code, Completion, FsdError
from firmware_shims.fsd.operators import OPERATORS
from firmware_shims.fsd.reading import read_program

__all__ = ["calibration", "small"]  # fixtures

CHECKED = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
GIB = 1 << 30


# ---- the contract


@CHECKED
def test_it_keeps_the_contract_with_a_model_that_has_nothing_for_the_npu(
    check: Check, tmp_path: Path
) -> None:
    assert check(Subject("fsd", own_model(tmp_path)))


@CHECKED
def test_it_keeps_the_contract_with_a_network_in_floats_that_it_quantises(
    check: Check, small: Model, calibration: Path
) -> None:
    assert check(Subject("fsd", small, {"calibration": str(calibration)}))


# ---- what it computes


def test_a_network_in_floats_gives_what_onnxruntime_gives_for_its_quantised_form(
    small: Model, calibration: Path
) -> None:
    data = Calibration({"x": np.load(calibration / "x.npy")}, "here")
    found = cut(taken(small.path.read_bytes(), small), data, frozenset(OPERATORS), GIB)
    onnxruntime = runtime_imported()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = onnxruntime.InferenceSession(
        found.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rows = frames(16, seed=9)
    theirs = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    program = loaded(small, calibration=calibration)
    ours = run(program, {"x": rows}, 16)["y"]
    program.close()
    quantum = np.diff(np.unique(theirs)).min()
    assert np.abs(ours - theirs).max() <= 1.01 * quantum
    assert np.unique(theirs).size > 20


def test_quantised_it_still_says_mostly_what_the_floats_say(small: Model, calibration: Path) -> None:
    session = runtime_imported().InferenceSession(small.path.read_bytes(), providers=["CPUExecutionProvider"])
    rows = frames(64, seed=7)
    floats = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    program = loaded(small, calibration=calibration)
    ours = run(program, {"x": rows}, 64)["y"]
    program.close()
    assert np.corrcoef(ours.ravel(), floats.ravel())[0, 1] > 0.99


def test_a_model_of_fixed_batch_takes_any_number_of_rows_and_both_npus_share_them(
    small: Model, calibration: Path
) -> None:
    program = loaded(small, calibration=calibration)
    rows = frames(7)
    together = run(program, {"x": rows}, 7)["y"]
    alone = np.concatenate([run(program, {"x": row[None]}, 1)["y"] for row in rows])
    np.testing.assert_array_equal(together, alone)
    (npu,) = (part for part in program._parts if isinstance(part, NpuPart))
    assert [len(lane.outputs[0]) for lane in npu._lanes] == [32, 32]  # of the 64 rows that were measured
    program.close()


def test_an_npz_calibrates_like_a_folder(small: Model, calibration: Path, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "rows.npz", x=np.load(calibration / "x.npy"))
    outputs = []
    for where in (calibration, tmp_path / "rows.npz"):
        program = loaded(small, calibration=where)
        outputs.append(run(program, {"x": frames(2)}, 2)["y"])
        program.close()
    np.testing.assert_array_equal(outputs[0], outputs[1])


# ---- where


def cut_of(model: ModelProto, *inputs: Tensor, wanted: tuple[str, ...] = ()) -> Cut:
    asked = Model(Path("none"), "", "onnx", inputs, wanted)
    given = taken(model.SerializeToString(), asked)
    return cut(given, Calibration.made_up(given.inputs), frozenset(OPERATORS), GIB)


def turns(found: Cut) -> list[tuple[str, list[str]]]:
    return [(part.place.value, [vertex.operator for vertex in part.vertices]) for part in found.parts]


def gated_network() -> ModelProto:
    """Two convolutions, the second gated by its own sigmoid: in between, the host has a say."""
    written = Written()
    frame = written.input("x", (8, 8, 8), **STORED)
    first = written.apply("Conv", [frame, written.constant(random_weights((8, 8, 3, 3)), 0.01)], **STORED)
    gate = written.apply("Sigmoid", [first], **STORED)
    gated = written.apply("Mul", [first, gate], **STORED)
    second = written.apply("Conv", [gated, written.constant(random_weights((4, 8, 3, 3)), 0.01)], **STORED)
    side = written.apply("MaxPool", [first], **STORED, kernel_shape=[2, 2])
    return written.finished(second, side)


GATED = Tensor("x", "INT8", (8, 8, 8))


def test_host_and_npu_take_turns_in_parts_as_large_as_can_be() -> None:
    found = cut_of(gated_network(), GATED)
    assert turns(found) == [
        ("npu", ["Conv", "MaxPool"]),
        ("host", ["Sigmoid", "QuantizeLinear", "Mul", "QuantizeLinear"]),
        ("npu", ["Conv"]),
    ]
    assert found.parts[0].gives == ("q0", "q15")
    reasons = {vertex.operator: found.reasons.get(vertex.name, "") for vertex in found.parts[1].vertices}
    assert "no such operator" in reasons["Sigmoid"]
    assert "multiplies two activations" in reasons["Mul"]


def test_what_no_wanted_output_needs_is_not_computed() -> None:
    assert turns(cut_of(gated_network(), GATED, wanted=("q15",))) == [("npu", ["Conv", "MaxPool"])]


def test_parts_in_turn_give_what_onnxruntime_gives(tmp_path: Path) -> None:
    model = gated_network()
    program = loaded(saved(model, tmp_path / "gated.onnx", GATED))
    rows = np.random.default_rng(4).integers(-128, 128, (5, *GATED.row_shape)).astype(np.int8)
    ours = run(program, {"x": rows}, 5)
    program.close()
    onnxruntime = runtime_imported()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for number, row in enumerate(rows):
        for name, theirs in zip(ours, session.run(list(ours), {"x": row[None]}), strict=True):
            assert np.abs(ours[name][number].astype(int) - theirs[0]).max() <= 1, name


def test_a_layer_whose_shape_is_computed_is_left_to_the_host() -> None:
    written = Written()
    frame = written.input("x", (8, 4), **STORED)
    shape = helper.make_node("Shape", ["x"], ["shape"], name="shape")
    flat = written.apply("Reshape", [frame, "shape"], **STORED)
    model = written.finished(flat)
    model.graph.node.insert(0, shape)
    found = cut_of(model, Tensor("x", "INT8", (8, 4)))
    assert [place for place, _ in turns(found)] == ["host"]
    assert found.reasons["n0"] == "it also takes shape: make that a constant"


def float_model(
    nodes: Sequence[Any], opset: int, *constants: tuple[str, Array], shape: Sequence[Any]
) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "floats",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)


def test_an_old_model_is_folded_upgraded_and_lies_on_the_npu_whole() -> None:
    ones, make = np.ones(4), helper.make_node
    model = float_model(
        [
            make("Conv", ["x", "w"], ["a"]),
            make("BatchNormalization", ["a", "s", "b", "b", "s"], ["c"]),
            make("Sum", ["c", "x"], ["d"]),
            make("Relu", ["d"], ["y"]),
        ],
        9,
        ("w", random_weights((4, 4, 1, 1)) / 127),
        ("s", ones),
        ("b", ones),
        shape=["rows", 4, "height", 8],
    )
    found = cut_of(model, Tensor("x", "FP32", (4, 6, 8)))
    assert turns(found) == [
        ("host", ["QuantizeLinear"]),
        ("npu", ["Conv", "Add"]),
        ("host", ["DequantizeLinear"]),
    ]
    assert found.model.opset_import[0].version >= 13


def test_a_row_of_bias_is_no_obstacle() -> None:
    model = float_model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        17,
        ("w", random_weights((8, 4)) / 127),
        ("b", np.ones((1, 4))),
        shape=["rows", 8],
    )
    assert turns(cut_of(model, Tensor("x", "FP32", (8,))))[1] == ("npu", ["Gemm"])


def test_vectors_of_a_row_are_multiplied_on_the_npu() -> None:
    model = float_model(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "b"], ["y"])],
        17,
        ("w", random_weights((8, 4)) / 127),
        ("b", np.ones(4)),
        shape=["rows", 16, 8],
    )
    assert turns(cut_of(model, Tensor("x", "FP32", (16, 8))))[1] == ("npu", ["MatMul", "Add"])


def test_a_sum_with_a_mask_stays_in_floats() -> None:
    """Its range would leave nothing of the scores."""
    make = helper.make_node
    model = float_model(
        [
            make("MatMul", ["x", "w"], ["scores"]),
            make("Sigmoid", ["x"], ["known"]),
            make("Mul", ["known", "far"], ["mask"]),
            make("Add", ["scores", "mask"], ["y"]),
        ],
        17,
        ("w", random_weights((8, 8)) / 127),
        ("far", np.full((1,), -1e38)),
        shape=["rows", 8],
    )
    found = cut_of(model, Tensor("x", "FP32", (8,)))
    assert [kinds for place, kinds in turns(found) if place == "npu"] == [["MatMul"]]


# ---- what it costs


def test_joules_are_those_of_the_chips_model_and_say_so(small: Model, calibration: Path) -> None:
    found = cut_of(small_network(), FRAME)
    (part,) = (part for part in found.parts if part.place is Place.NPU)
    network = read_program(found.cutting.model_of(part).SerializeToString())
    program = loaded(small, calibration=calibration)
    output = np.zeros((2, 10), np.float32)
    spent = program.run({"x": frames(2)}, {"y": output})
    program.close()
    assert spent.joules_source == "model"
    assert spent.joules == pytest.approx(2 * modelled(network).joules, rel=0.02)


def test_what_the_host_alone_has_run_has_no_joules(tmp_path: Path) -> None:
    program = loaded(own_model(tmp_path))
    spent = program.run({"x": np.ones((1, 8), np.float32)}, {"y": np.zeros((1, 8), np.float32)})
    program.close()
    assert spent.joules is None


async def test_a_worker_quantises_within_its_limits_and_passes_the_source_on(
    small: Model, calibration: Path
) -> None:
    async with started("fsd", calibration=str(calibration), limits=may_read(small)) as worker:
        program = await worker.load(small)
        with worker.slot(program, 1) as slot:
            done = await worker.run(slot)
    assert (done.spent.joules_source, program.device) == ("model", "emulator")
    assert done.spent.joules
    assert "emulator" in program.version or worker.version


class Quick:
    """An NPU that has computed at once what it says took it long."""

    npu = 0

    def __init__(self, seconds: float) -> None:
        self.inputs: Sequence[Binding] = [Binding("x", "INT8", (4,), 4)]
        self.outputs: Sequence[Binding] = [Binding("y", "INT8", (4,), 4)]
        self.seconds = seconds
        self.fails: Code | None = None
        self.submitted = 0
        self.waited = 0

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        pass

    def submit(self, rows: int = 1) -> None:
        self.submitted += rows

    def wait(self, timeout_s: float) -> Completion:
        del timeout_s
        self.waited += 1
        if self.fails is not None:
            raise FsdError(self.fails, "wait", "told to fail")
        return Completion(round(self.seconds * 1e9), 1, 1)

    def abort(self) -> None:
        pass

    def unload(self) -> None:
        pass


def paced_run(npu: Quick, given_up: threading.Event, *, pace: bool = True) -> float:
    begin_ns = boottime_ns()
    NpuPart([Lane(npu)], pace).run({"x": np.zeros((1, 1, 4), np.int8)}, 1, given_up)
    return (boottime_ns() - begin_ns) / 1e9


def test_with_pace_a_run_takes_what_the_chip_would() -> None:
    assert paced_run(Quick(0.05), threading.Event()) >= 0.05
    assert paced_run(Quick(60), threading.Event(), pace=False) < 30


def test_a_run_that_is_paced_can_be_cancelled() -> None:
    given_up = threading.Event()
    timer = threading.Timer(0.02, given_up.set)
    timer.start()
    with pytest.raises(Cancelled):
        paced_run(Quick(60), given_up)
    timer.join()


def test_where_one_npu_fails_the_other_is_waited_for() -> None:
    first, second = Quick(0), Quick(0)
    first.fails = Code.OVERHEATED
    part = NpuPart([Lane(first), Lane(second)], pace=False)
    with pytest.raises(Exception, match="overheated: told to fail"):
        part.run({"x": np.zeros((3, 1, 4), np.int8)}, 3, threading.Event())
    assert (first.submitted, second.submitted) == (2, 1)
    assert (first.waited, second.waited) == (1, 1)


# ---- cancel


def test_the_bound_of_a_cancel_is_measured_and_no_longer_than_a_run(tmp_path: Path) -> None:
    written = Written()
    result = written.input("x", (32, 96, 96), **STORED)
    for seed in range(12):
        weights = written.constant(random_weights((32, 32, 3, 3), seed), 0.01)
        result = written.apply("Conv", [result, weights], **STORED, pads=[1, 1, 1, 1])
    program = loaded(
        saved(written.finished(result), tmp_path / "deep.onnx", Tensor("x", "INT8", (32, 96, 96)))
    )
    cost = program.cost
    program.close()
    assert cost.cancel_bound_s is not None
    assert 0 < cost.cancel_bound_s <= cost.run_s[1]
