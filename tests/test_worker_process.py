"""A worker through its whole life, as the agent uses it: real processes, real shared memory."""

import asyncio
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from workers import BYTES, LONG_US, environment_of, file_type_model, may_read, started

from backends.kernel import Cancelled, KernelError, Model, Tensor
from backends.process import WorkerDied, WorkerProcess
from backends.registry import UnknownBackend
from backends.slots import ArenaFull, Slot

UNRULY = "unruly_backends"


@pytest.fixture(autouse=True)
def workers_find_the_unruly_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


async def test_rows_through_a_worker_equal_the_bare_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    onnxruntime = pytest.importorskip("onnxruntime")
    numpy = pytest.importorskip("numpy")
    model = file_type_model()
    rows = numpy.random.default_rng(7).integers(0, 257, (6, 2048)).astype(numpy.int32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])

    async with started("cpu", limits=may_read(model)) as worker:
        program = await worker.load(model)
        assert [tensor.row_shape for tensor in program.outputs] == [(214,)]
        assert program.max_batch is None
        for begin, end in ((0, 1), (0, 6), (2, 5)):
            with worker.slot(program, end - begin) as slot:
                slot.inputs[0][:] = rows[begin:end].tobytes()
                done = await worker.run(slot)
                bare = session.run(None, {"bytes": rows[begin:end]})[0]
                assert slot.outputs[0] == bare.tobytes()
                assert done.cpu_s > 0
                assert done.spent.begin_ns < done.spent.end_ns


async def test_several_runs_may_wait_and_each_gets_its_own_rows() -> None:
    async with started("null") as worker:
        program = await worker.load(BYTES)
        slots = [worker.slot(program, 1 + number % 7) for number in range(1500)]
        for number, slot in enumerate(slots):
            slot.inputs[0][:] = bytes([number % 251]) * (1024 * slot.rows)
        spent = [done.spent for done in await asyncio.gather(*map(worker.run, slots))]
        for number, slot in enumerate(slots):
            assert slot.outputs[0] == bytes([number % 251]) * (1024 * slot.rows)
            slot.release()
        assert all(a.end_ns <= b.begin_ns for a, b in itertools.pairwise(spent))


async def test_a_slot_in_the_place_of_another_has_its_own_rows() -> None:
    async with started("null") as worker:
        program = await worker.load(BYTES)
        for number, rows in enumerate((2, 5, 2, 2), start=1):
            with worker.slot(program, rows) as slot:
                assert slot.offset == 0
                slot.inputs[0][:] = bytes([number]) * (1024 * rows)
                await worker.run(slot)
                assert slot.outputs[0] == bytes([number]) * (1024 * rows)


async def test_garbage_of_a_night_does_not_pile_up_in_a_worker() -> None:
    async with started(f"{UNRULY}:Litters") as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 1) as slot:
            await worker.run(slot)
            assert slot.outputs[0][0] == 1


async def test_a_shared_input_is_given_once_and_echoed_to_every_row() -> None:
    inputs = (Tensor("row", "INT16", (2,)), Tensor("table", "FP64", (3,), shared=True))
    async with started("null") as worker:
        program = await worker.load(Model(BYTES.path, BYTES.sha256, "onnx", inputs, outputs=("table",)))
        with worker.slot(program, 2) as slot:
            slot.inputs[1][:] = bytes(range(24))
            await worker.run(slot)
            assert slot.outputs[0] == bytes(range(24)) * 2


async def under_way(slot: Slot) -> None:
    async with asyncio.timeout(30):
        while slot.outputs[0][0] != 1:
            await asyncio.sleep(0.001)


async def test_a_cancelled_run_ends_and_the_next_one_is_good() -> None:
    async with started(f"{UNRULY}:AnnouncesItsRuns", run_us=LONG_US) as worker:
        program = await worker.load(BYTES)
        for _ in range(2):
            with worker.slot(program, 1) as slot:
                slot.outputs[0][0] = 0
                run = asyncio.ensure_future(worker.run(slot))
                await under_way(slot)
                worker.cancel(slot)
                worker.cancel(slot)
                with pytest.raises(Cancelled):
                    await run
                worker.cancel(slot)  # without a run it does nothing


async def test_a_real_model_stops_in_the_middle_of_a_batch() -> None:
    model = file_type_model()
    async with started("cpu", limits=may_read(model)) as worker:
        program = await worker.load(model)
        assert program.cost.cancel_bound_s is not None
        assert 0 < program.cost.cancel_bound_s < 1
        with worker.slot(program, 256) as slot:
            run = asyncio.ensure_future(worker.run(slot))
            await asyncio.sleep(0)
            worker.cancel(slot)
            with pytest.raises(Cancelled):
                await run
            with worker.slot(program, 1) as next_slot:
                await worker.run(next_slot)


async def test_a_run_that_still_waits_can_be_cancelled_alone() -> None:
    async with started(f"{UNRULY}:AnnouncesItsRuns", run_us=LONG_US) as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 1) as first, worker.slot(program, 1) as second:
            first.outputs[0][0] = second.outputs[0][0] = 0
            runs = [asyncio.ensure_future(worker.run(slot)) for slot in (first, second)]
            await under_way(first)
            worker.cancel(second)
            worker.cancel(first)
            for run in runs:
                with pytest.raises(Cancelled):
                    await run
            assert second.outputs[0][0] == 0


async def test_whoever_stops_waiting_for_a_run_cancels_it_and_its_memory_waits_for_the_worker() -> None:
    async with started("null", run_us=LONG_US, arena_bytes=4096) as worker:
        program = await worker.load(BYTES)
        slot = worker.slot(program, 1)
        run = asyncio.ensure_future(worker.run(slot))
        await asyncio.sleep(0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        slot.release()
        with pytest.raises(ArenaFull):
            worker.slot(program, 2)
        await worker.probe()  # answered after the run: by now the worker has let go of the slot
        worker.slot(program, 2).release()


async def test_a_slot_larger_than_the_arena_says_so_and_a_full_arena_frees_itself_by_release() -> None:
    async with started("null", arena_bytes=8192) as worker:
        program = await worker.load(BYTES)
        with pytest.raises(
            ArenaFull, match="of 8192 bytes are free in one piece; raise arena_bytes"
        ) as caught:
            worker.slot(program, 5)
        assert (caught.value.needed_bytes, caught.value.limit_bytes) == (10_240, 8192)
        slots = [worker.slot(program, 1) for _ in range(4)]
        with pytest.raises(ArenaFull, match="release slots that are done"):
            worker.slot(program, 1)
        for slot in slots:
            slot.release()
            slot.release()
        worker.slot(program, 4).release()


async def test_a_slot_is_used_for_one_run_at_a_time() -> None:
    async with started("null", run_us=LONG_US) as worker:
        program = await worker.load(BYTES)
        slot = worker.slot(program, 1)
        run = asyncio.ensure_future(worker.run(slot))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="running or released"):
            await worker.run(slot)
        worker.cancel(slot)
        with pytest.raises(Cancelled):
            await run
        slot.release()
        with pytest.raises(ValueError, match="running or released"):
            await worker.run(slot)
        with pytest.raises(ValueError, match="a run of 0 rows"):
            worker.slot(program, 0)


async def test_an_unloaded_program_leaves_the_others_alone() -> None:
    async with started("null") as worker:
        first, second = await worker.load(BYTES), await worker.load(BYTES)
        await worker.unload(first)
        with worker.slot(second, 1) as slot:
            await worker.run(slot)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ({"does": "refuse", "at": "load"}, 1023, "the device has 8 GiB"),
        ({"does": "allocate", "at": "load"}, 1023, "out of memory"),
        ({"does": "unusable"}, 1020, "null: the driver is not loaded"),
    ],
)
async def test_a_refusal_comes_back_with_its_code_and_the_worker_lives(
    options: dict[str, Any], code: int, text: str
) -> None:
    async with started("fault", **options) as worker:
        for _ in range(2):
            with pytest.raises(KernelError, match=text) as caught:
                await worker.load(BYTES)
            assert caught.value.code == code


async def test_a_misspelt_backend_or_option_is_refused_before_a_process_exists() -> None:
    with pytest.raises(UnknownBackend, match=r"'cpx' is not known: take cpu, .* or MODULE:CLASS"):
        WorkerProcess.start("cpx", {})
    with pytest.raises(ValidationError, match="thread"):
        WorkerProcess.start("cpu", {"thread": 2})


async def test_the_worker_is_told_apart_in_ps_and_reports_nothing_to_the_runtimes_maker() -> None:
    async with started("null") as worker:
        await worker.probe()
        assert Path(f"/proc/{worker.pid}/comm").read_text() == "parkwatt null\n"
        assert environment_of(worker.pid)["ORT_DISABLE_TELEMETRY"] == "1"
        assert os.getpgid(worker.pid) == os.getsid(worker.pid) == worker.pid
        assert worker.version


async def test_after_stop_every_call_says_that_the_worker_is_gone() -> None:
    async with started("null") as worker:
        program = await worker.load(BYTES)
        slot = worker.slot(program, 1)
        assert (await worker.stop()).returncode == 0
        assert (await worker.stop()).returncode == 0
        with pytest.raises(WorkerDied, match="ended with exit code 0"):
            await worker.run(slot)
        with pytest.raises(WorkerDied):
            worker.slot(program, 1)
        with pytest.raises(WorkerDied):
            await worker.probe()
        slot.release()


async def test_stop_cancels_what_runs_and_the_worker_leaves_by_itself() -> None:
    async with started(f"{UNRULY}:AnnouncesItsRuns", run_us=LONG_US) as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 1) as slot:
            slot.outputs[0][0] = 0
            run = asyncio.ensure_future(worker.run(slot))
            await under_way(slot)
            assert (await worker.stop(grace_s=30)).returncode == 0
            with pytest.raises(Cancelled):
                await run


async def test_stop_kills_a_worker_that_does_not_hear() -> None:
    async with started(f"{UNRULY}:IsDeaf", run_us=LONG_US) as worker:
        program = await worker.load(BYTES)
        with worker.slot(program, 1) as slot:
            slot.outputs[0][0] = 0
            run = asyncio.ensure_future(worker.run(slot))
            await under_way(slot)
            assert (await worker.stop(grace_s=0.05)).returncode == -9
            with pytest.raises(WorkerDied):
                await run


def test_the_supervisors_side_imports_no_runtime() -> None:
    code = """
import sys
import backends.process
backends.registry.validate_options("cpu", {"threads": 2})
backends.registry.validate_options("null", {})
heavy = {"numpy", "onnxruntime", "tflite_runtime", "ai_edge_litert", "joserfc", "rich"} & set(sys.modules)
assert not heavy, heavy
assert "multiprocessing" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
