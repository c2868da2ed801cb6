"""The emulated NPUs behind the driver interface: what they compute, and how they are driven."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fsd_models import Model, Tensor, integer_twin, light, random_weights
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_shims.fsd import runtime
from firmware_shims.fsd.emulated import EmulatedProgram
from firmware_shims.fsd.emulator import Emulator
from firmware_shims.fsd.interface import Code, FsdError, NpuDevice

Array = npt.NDArray[Any]
DTYPES: dict[str, Any] = {"INT8": np.int8, "UINT8": np.uint8}
WAIT_S = 60


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    opened = Emulator()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Emulator, Emulator]]:
    """A fast emulator and the reference."""
    pair = Emulator("fast"), Emulator("reference")
    yield pair
    for opened in pair:
        opened.close()


@pytest.fixture(scope="module")
def resnet() -> bytes:
    return integer_twin(light("resnet50"), 224, 224)


def random_frames(program: EmulatedProgram, rows: int, seed: int = 1) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 256, (rows, *binding.row_shape)).astype(np.uint8).view(DTYPES[binding.datatype])
        for binding in program.inputs
    ]


def bound(program: EmulatedProgram, frames: Sequence[Array]) -> list[Array]:
    """Bind frames and empty results; the results."""
    results = [
        np.zeros((len(frames[0]), *binding.row_shape), DTYPES[binding.datatype])
        for binding in program.outputs
    ]
    program.bind(frames, results)
    return results


def run(program: EmulatedProgram, frames: Sequence[Array]) -> list[Array]:
    results = bound(program, frames)
    program.submit(len(frames[0]))
    program.wait(WAIT_S)
    return results


def both_agree(pair: tuple[Emulator, Emulator], program: bytes, rows: int = 2, seed: int = 1) -> list[Array]:
    """The fast results, which have to be those of the reference."""
    fast, reference = (opened.load(program, 0) for opened in pair)
    try:
        frames = random_frames(fast, rows, seed)
        results = run(fast, frames)
        for ours, theirs in zip(results, run(reference, frames), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    finally:
        fast.unload()
        reference.unload()
    return results


def one_layer(operator: str, stored: dict[str, Any], dtype: Any, rng: np.random.Generator) -> bytes:
    """A program of one unit with everything about it drawn."""
    model = Model()
    frame = model.input("x", (6, 9, 8), 0.05, int(rng.integers(0, 100)), dtype)
    other = model.input("z", (6, 9, 8), 0.03, int(rng.integers(0, 100)), dtype)
    per_channel = rng.uniform(1e-3, 1e-2, 4).astype(np.float32)
    bias = rng.integers(-900, 900, 4).astype(np.int32)
    window = {"kernel_shape": [3, 2], "strides": rng.integers(1, 3, 2).tolist(), "pads": [1, 0, 2, 1]}
    flat = model.apply("Reshape", [frame, model.raw(np.array([1, -1]))], 0.05, frame.zero_point)
    inputs: dict[str, tuple[Sequence[Tensor | str], dict[str, Any]]] = {
        "Conv": (
            [
                frame,
                model.constant(random_weights((4, 3, 3, 2)), per_channel, axis=0),
                model.constant(bias, np.float32(0.05) * per_channel, axis=0),
            ],
            {"group": 2, **window},
        ),
        "ConvTranspose": (
            [frame, model.constant(random_weights((6, 2, 3, 2)), 0.01)],
            {
                "group": 2,
                "strides": [2, 3],
                "pads": [1, 0, 2, 1],
                "dilations": [2, 1],
                "output_padding": [1, 0],
            },
        ),
        "Gemm": (
            [
                flat,
                model.constant(random_weights((4, 432)), per_channel, axis=0),
                model.constant(bias, np.float32(0.05) * per_channel, axis=0),
            ],
            {"transB": 1},
        ),
        "MatMul": ([frame, model.constant(random_weights((8, 4)), per_channel, axis=1)], {}),
        "MaxPool": ([frame], {**window, "pads": [1, 0, 1, 0], "ceil_mode": 1}),
        "AveragePool": ([frame], {**window, "count_include_pad": int(rng.integers(0, 2))}),
        "GlobalAveragePool": ([frame], {}),
        "Add": ([other, frame], {}),
        "Mul": ([model.constant(random_weights((6, 1, 1)), 0.02), frame], {}),
        "Concat": ([frame, other, frame], {"axis": -1}),
        "Relu": ([frame], {}),
        "Clip": ([frame, model.raw(np.array(0, np.float32)), model.raw(np.array(1.5, np.float32))], {}),
        "Flatten": ([frame], {}),
    }
    taken, attributes = inputs[operator]
    result = model.apply(
        operator,
        taken,
        **stored,
        **attributes,
        activation=rng.choice(["", "Relu"]) if len(taken) > 1 and operator != "Clip" else "",
    )
    unused = model.apply("Add", [frame, other], 0.1, 7)  # every input is taken
    return model.program(result, unused)


OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "AveragePool", "GlobalAveragePool"),
    *("Add", "Mul", "Concat", "Relu", "Clip", "Flatten"),
)


@pytest.mark.parametrize("operator", OPERATORS)
@given(
    scale=st.floats(2**-8, 1.0, width=32),
    zero_point=st.integers(0, 100),
    dtype=st.sampled_from([np.int8, np.uint8]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=12)
def test_the_fast_way_gives_what_the_reference_gives(
    operator: str, *, pair: tuple[Emulator, Emulator], scale: float, zero_point: int, dtype: Any, seed: int
) -> None:
    stored = {"scale": scale, "zero_point": zero_point}
    program = one_layer(operator, stored, dtype, np.random.default_rng(seed))
    both_agree(pair, program, rows=3, seed=seed)


@pytest.mark.parametrize(("name", "size"), [("resnet50", 96), ("inception_v1", 96), ("inception_v2", 96)])
def test_both_ways_agree_over_whole_networks(pair: tuple[Emulator, Emulator], name: str, size: int) -> None:
    results = both_agree(pair, integer_twin(light(name), size, size))[0]
    assert np.unique(results).size > 20  # it is not all saturated


def test_both_ways_agree_on_a_processor_that_would_saturate(
    pair: tuple[Emulator, Emulator], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "saturates", lambda _: True)
    both_agree(pair, integer_twin(light("resnet50"), 64, 64))


def test_rows_of_a_batch_do_not_mix(emulator: Emulator) -> None:
    program = emulator.load(integer_twin(light("squeezenet"), 64, 64), 0)
    frames = random_frames(program, 4)[0]
    together = run(program, [frames])[0]
    for number in range(4):
        np.testing.assert_array_equal(run(program, [frames[number : number + 1]])[0][0], together[number])


def test_the_emulator_is_a_device_as_every_driver_is(emulator: Emulator) -> None:
    device: NpuDevice = emulator
    told = device.capabilities
    assert (told.npus, told.sram_bytes, told.clock_hz, told.macs_per_cycle) == (
        2,
        32 << 20,
        2_000_000_000,
        9216,
    )
    assert told.energy_source == "model"
    assert {"Conv", "ConvTranspose", "MatMul", "MaxPool", "Relu", "Add", "Concat", "Mul"} <= told.operators
    assert device.temperature_c(0) is None


def test_a_run_tells_the_modelled_time_and_energy_and_the_counter_follows(
    emulator: Emulator, resnet: bytes
) -> None:
    program = emulator.load(resnet, 1)
    loaded_nj = emulator.energy_nj(1)
    bound(program, random_frames(program, 2))
    program.submit(2)
    done = program.wait(WAIT_S)
    cost = program.report(2)
    assert loaded_nj == round(cost.load_joules * 1e9)
    assert done.device_ns == round(cost.seconds * 1e9)
    assert done.cycles == round(cost.seconds * 2e9)
    assert done.energy_nj == round(cost.joules * 1e9)
    assert emulator.energy_nj(1) == loaded_nj + done.energy_nj
    assert emulator.energy_nj(0) == 0


def test_both_npus_work_at_the_same_time(emulator: Emulator, resnet: bytes) -> None:
    programs = [emulator.load(resnet, npu) for npu in (0, 1)]
    frames = random_frames(programs[0], 4)
    expected = run(programs[0], frames)
    results = [bound(program, frames) for program in programs]
    for program in programs:
        program.submit(4)
    for program, (found,) in zip(programs, results, strict=True):
        program.wait(WAIT_S)
        np.testing.assert_array_equal(found, expected[0])


def test_an_npu_that_works_is_busy_for_every_program_on_it(emulator: Emulator, resnet: bytes) -> None:
    first, second = emulator.load(resnet, 0), emulator.load(resnet, 0)
    frames = random_frames(first, 16)
    bound(first, frames)
    bound(second, frames)
    first.submit(16)
    with pytest.raises(FsdError) as refused:
        second.submit(1)
    assert refused.value.code is Code.BUSY
    first.abort()


@pytest.mark.parametrize("way", ["fast", "reference"])
def test_a_run_is_given_up_long_before_its_end(way: Any, resnet: bytes) -> None:
    emulator = Emulator(way)
    try:
        program = emulator.load(resnet, 0)
        results = bound(program, random_frames(program, 64))
        program.submit(64)
        with pytest.raises(FsdError) as going_on:
            program.wait(0.02)
        assert going_on.value.code is Code.TIMED_OUT
        program.abort()
        program.abort()
        with pytest.raises(FsdError) as ended:
            program.wait(WAIT_S)
        assert ended.value.code is Code.ABORTED
        assert not results[0].any()
        assert emulator.energy_nj(0) == round(program.report(1).load_joules * 1e9) + round(
            program.report(64).joules * 1e9
        )
    finally:
        emulator.close()


def test_an_npu_works_on_after_an_abort(emulator: Emulator, resnet: bytes) -> None:
    program = emulator.load(resnet, 0)
    frames = random_frames(program, 1)
    expected = run(program, frames)
    program.abort()  # of a run that has ended: nothing happens
    bound(program, random_frames(program, 32))
    program.submit(32)
    program.abort()
    with pytest.raises(FsdError, match="aborted"):
        program.wait(WAIT_S)
    np.testing.assert_array_equal(run(program, frames)[0], expected[0])


def test_aborts_from_many_threads_end_one_run(emulator: Emulator, resnet: bytes) -> None:
    program = emulator.load(resnet, 0)
    bound(program, random_frames(program, 64))
    program.submit(64)
    threads = [threading.Thread(target=program.abort) for _ in range(16)]
    for thread in threads:
        thread.start()
    with pytest.raises(FsdError, match="aborted"):
        program.wait(WAIT_S)
    for thread in threads:
        thread.join()


def test_closing_ends_what_runs_and_a_second_time_nothing(resnet: bytes) -> None:
    before = threading.active_count()
    emulator = Emulator()
    program = emulator.load(resnet, 0)
    bound(program, random_frames(program, 64))
    program.submit(64)
    emulator.close()
    emulator.close()
    program.unload()
    assert threading.active_count() == before
    with pytest.raises(FsdError, match="no_device: the device is closed"):
        emulator.load(resnet, 0)
    with pytest.raises(FsdError, match="unloaded"):
        program.submit()


def test_programs_share_the_sram_of_their_npu(emulator: Emulator, resnet: bytes) -> None:
    first, second, elsewhere = emulator.load(resnet, 0), emulator.load(resnet, 0), emulator.load(resnet, 1)
    assert first.report().dram_bytes == elsewhere.report().dram_bytes
    assert second.report().dram_bytes > first.report().dram_bytes + 15_000_000
    first.unload()
    second.unload()
    assert emulator.load(resnet, 0).report().dram_bytes == first.report().dram_bytes


def bind_too_few(program: EmulatedProgram) -> None:
    program.bind([], [])


def bind_read_only(program: EmulatedProgram) -> None:
    (frame,), size = random_frames(program, 1), program.outputs[0].row_bytes
    program.bind([frame], [bytes(size)])


def bind_scattered(program: EmulatedProgram) -> None:
    frame = random_frames(program, 2)[0]
    program.bind([frame[:, ::2]], [bytearray(program.outputs[0].row_bytes)])


def bind_short(program: EmulatedProgram) -> None:
    program.bind([bytearray(10)], [bytearray(program.outputs[0].row_bytes)])


def submit_unbound(program: EmulatedProgram) -> None:
    program.submit()


def submit_nothing(program: EmulatedProgram) -> None:
    bound(program, random_frames(program, 1))
    program.submit(0)


def wait_for_nothing(program: EmulatedProgram) -> None:
    program.wait(1)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (bind_too_few, "0 buffers for 1 tensors"),
        (bind_read_only, "needs C-contiguous, writable memory"),
        (bind_scattered, "needs C-contiguous memory"),
        (bind_short, "1 rows of 'data' are 12288 bytes, and its buffer has 10"),
        (submit_unbound, "bind them first"),
        (submit_nothing, "0 rows; 1 is the least"),
        (wait_for_nothing, "no run is under way"),
    ],
)
def test_a_mistake_is_named(
    emulator: Emulator, mistake: Callable[[EmulatedProgram], None], words: str
) -> None:
    program = emulator.load(integer_twin(light("squeezenet"), 64, 64), 0)
    with pytest.raises(FsdError, match=words) as refused:
        mistake(program)
    assert refused.value.code is Code.BAD_ARGUMENT


def test_an_npu_that_is_not_there_is_named(emulator: Emulator) -> None:
    with pytest.raises(FsdError, match="there is no NPU 2: the device has 2"):
        emulator.load(b"", 2)


def test_without_onnxruntime_the_reference_does_not_step_in(
    emulator: Emulator, resnet: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FsdError, match=r"parkwatt\[fsd\]") as refused:
        emulator.load(resnet, 0)
    assert refused.value.code is Code.NO_DEVICE
