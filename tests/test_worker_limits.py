"""A model cannot take the car with it: what a worker gave up before it saw the model, tried from inside."""

import asyncio
import hashlib
import re
import shutil
import socket
import struct
from pathlib import Path

import pytest
from model_bombs import asks_for_32_gib, loops_for_ever
from workers import BYTES, may_read, started

from backends import calls, syscall_filter
from backends.kernel import KernelError, Model, Tensor
from backends.limits import Limit, Limits, described
from backends.process import WorkerDied, WorkerProcess

HOSTILE = "hostile_backends:Hostile"
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.fixture(autouse=True)
def workers_find_the_hostile_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def model_in(folder: Path, data: bytes = b"weights", inputs: tuple[Tensor, ...] = BYTES.inputs) -> Model:
    path = folder / hashlib.sha256(data).hexdigest()
    path.write_bytes(data)
    return Model(path, path.name, "onnx", inputs)


def held(worker: WorkerProcess, word: str) -> bool:
    (limit,) = [limit for limit in worker.limits if word in limit.name]
    return not limit.why


async def outcome(attempt: str, model: Model, target: str = "", *, needs: str) -> str:
    """What came of an attempt; skipped where the kernel lacks the limit that `needs` names."""
    async with started(HOSTILE, limits=may_read(model), attempt=attempt, target=target) as worker:
        await worker.probe()
        if not held(worker, needs):
            pytest.skip(f"not held here: {described(worker.limits)}")
        with pytest.raises(KernelError) as caught:
            await worker.load(model)
        return caught.value.text


async def test_this_machine_holds_every_limit_or_says_which_not() -> None:
    async with started("null") as worker:
        await worker.probe()
        assert len(worker.limits) == 9
        always = [limit for limit in worker.limits if not re.search("Landlock|seccomp", limit.name)]
        assert [limit for limit in always if limit.why] == []


async def test_the_owners_programs_come_before_a_worker_at_the_disk() -> None:
    if (ionice := shutil.which("ionice")) is None:
        pytest.skip("no ionice on the PATH")
    async with started("null") as worker:
        await worker.probe()
        asked = await asyncio.create_subprocess_exec(
            ionice, "-p", str(worker.pid), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await asked.communicate()
        assert said.decode().strip() == "best-effort: prio 7"


async def test_every_thread_of_a_worker_has_given_up_its_privileges() -> None:
    async with started("null") as worker:
        await worker.probe()
        for task in Path(f"/proc/{worker.pid}/task").iterdir():
            lines = (task / "status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 0
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == ("2" if held(worker, "seccomp") else "0")
        assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text() == "1000\n"
        assert int(Path(f"/proc/{worker.pid}/coredump_filter").read_text(), 16) == 0


def test_limits_read_as_one_line() -> None:
    limits = (Limit("memory 4 GiB"), Limit("only its own files", "Function not implemented"))
    assert described(limits[:1]) == "memory 4 GiB"
    assert described(limits) == "memory 4 GiB; not held here: only its own files: Function not implemented"


@pytest.mark.parametrize("attempt", ["write", "read", "list", "change mode"])
async def test_the_files_of_the_car_are_out_of_reach(attempt: str, tmp_path: Path) -> None:
    secret = tmp_path / "owner"
    secret.mkdir()
    target = secret if attempt == "list" else secret / "key"
    (secret / "key").write_text("of the car")
    models = tmp_path / "models"
    models.mkdir()
    needs = "seccomp" if attempt == "change mode" else "Landlock"
    assert "refused" in await outcome(attempt, model_in(models), str(target), needs=needs)
    assert (secret / "key").read_text() == "of the car"


@pytest.mark.parametrize(("attempt", "target"), [("write", "/etc/passwd"), ("read", "/etc/passwd")])
async def test_the_files_of_the_system_are_out_of_reach(attempt: str, target: str, tmp_path: Path) -> None:
    assert "Permission denied" in await outcome(attempt, model_in(tmp_path), target, needs="Landlock")


@pytest.mark.parametrize("attempt", ["write", "delete"])
async def test_a_model_is_read_and_not_changed(attempt: str, tmp_path: Path) -> None:
    model = model_in(tmp_path)
    assert "refused" in await outcome(attempt, model, needs="Landlock")
    assert model.path.read_bytes() == b"weights"
    assert await outcome("read", model, needs="Landlock") == "done"


async def test_its_scratch_folder_is_its_own(tmp_path: Path) -> None:
    assert await outcome("use its scratch", model_in(tmp_path), needs="Landlock") == "done"


async def test_the_agents_environment_is_out_of_reach(tmp_path: Path) -> None:
    attempt = "read the agent's environment"
    assert "refused" in await outcome(attempt, model_in(tmp_path), needs="Landlock")


async def test_no_connection_to_anything_on_this_machine(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as control:
        control.bind(str(tmp_path / "agent.sock"))
        control.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        model = model_in(tmp_path)
        assert "not permitted" in await outcome("connect", model, address, needs="seccomp")
        path = str(tmp_path / "agent.sock")
        assert "not permitted" in await outcome("call the agent", model, path, needs="seccomp")
        assert "not permitted" in await outcome("shout", model, needs="seccomp")


@pytest.mark.parametrize(
    "attempt",
    [
        "breed",
        "start a shell",
        "become a shell",
        "signal the agent",
        "signal its group",
        "trace the agent",
        "bound the agent",
    ],
)
async def test_no_process_is_started_and_no_other_is_touched(attempt: str, tmp_path: Path) -> None:
    assert "not permitted" in await outcome(attempt, model_in(tmp_path), needs="seccomp")


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        ("fill the disk", "File too large"),
        ("open many files", "Too many open files"),
        ("take memory", "Cannot allocate memory"),
        ("start threads", "can't start new thread"),
    ],
)
async def test_what_is_shared_with_the_car_is_bounded(attempt: str, error: str, tmp_path: Path) -> None:
    assert error in await outcome(attempt, model_in(tmp_path), needs="memory 4 GiB")


async def test_a_limit_stays_where_it_is(tmp_path: Path) -> None:
    assert "refused" in await outcome("lift a limit", model_in(tmp_path), needs="no capabilities")


@pytest.mark.parametrize("arena_bytes", [1 << 30, 1 << 40])
async def test_a_small_model_that_asks_for_32_gib_is_refused_and_the_worker_lives(
    arena_bytes: int, tmp_path: Path
) -> None:
    """By the runtime's own bound, and by the worker's where the runtime was given none."""
    pytest.importorskip("onnxruntime")
    bomb = model_in(tmp_path, asks_for_32_gib(), (Tensor("x", "FP32", (4,)),))
    worker = WorkerProcess.start("cpu", {"arena_bytes": arena_bytes}, limits=may_read(bomb))
    try:
        for _ in range(2):
            with pytest.raises(KernelError) as caught:
                await worker.load(bomb)
            assert caught.value.code in {133, 1023}, caught.value.text
    finally:
        await worker.stop()


async def test_a_small_model_that_never_ends_is_ended_as_hung(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bomb = model_in(tmp_path, loops_for_ever(), (Tensor("x", "FP32", (4,)),))
    async with started("cpu", limits=Limits((str(tmp_path),), load_s=0.3)) as worker:
        await worker.probe()
        with pytest.raises(WorkerDied, match=r"it hung: no Loaded for 0\.3 s") as caught:
            await worker.load(bomb)
        assert caught.value.code == 1022


async def test_the_kernel_ends_a_model_that_never_ends_where_nobody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    bomb = model_in(tmp_path, loops_for_ever(), (Tensor("x", "FP32", (4,)),))
    async with started("cpu", limits=Limits((str(tmp_path),), load_s=0.1)) as worker:
        await worker.probe()
        monkeypatch.setattr(calls.Calls, "overdue", lambda *_: "")
        with pytest.raises(WorkerDied, match="used up the processor time of its call") as caught:
            await worker.load(bomb)
        assert caught.value.code == 1022


@pytest.mark.parametrize("threads", [1, 3])
async def test_a_runtime_with_threads_works_inside_the_limits(threads: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from backends.tiny_onnx import one_node  # noqa: PLC0415

    data = one_node("Softmax", {"x": ("FP32", ("rows", 4))}, ("FP32", ("rows", 4)))
    model = model_in(tmp_path, data, (Tensor("x", "FP32", (4,)),))
    async with started("cpu", limits=may_read(model), threads=threads) as worker:
        program = await worker.load(model)
        with worker.slot(program, 2) as slot:
            slot.inputs[0][:] = bytes(32)
            await worker.run(slot)
            assert struct.unpack("8f", slot.outputs[0]) == (0.25,) * 8


@pytest.mark.parametrize("machine", HEADERS)
def test_system_call_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip(f"no {HEADERS[machine]}")
    text = HEADERS[machine].read_text()
    known = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\s", text)}
    column = list(syscall_filter.AUDIT_ARCH).index(machine)
    calls = {**syscall_filter.REFUSED, **syscall_filter.ABSENT, **syscall_filter.OWN_TARGET_ONLY}
    calls["clone"] = syscall_filter.CLONE
    for name, numbers in calls.items():
        if name in known or numbers[column] is None:
            assert numbers[column] == known.get(name), name
    assert syscall_filter.SECCOMP[machine] == known["seccomp"]
