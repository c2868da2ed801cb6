"""A car tells nobody which models it runs: onnxruntime's usage reports stay off in a worker."""

from pathlib import Path

import pytest
from workers import file_type_model, may_read, started

THREADS_OF_OURS = 3  # main, heartbeat and cancels


def threads_of(pid: int) -> list[str]:
    return [(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()]


async def test_a_session_in_a_worker_leaves_no_file_and_no_uploader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    model = file_type_model()
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    async with started("cpu", limits=may_read(model)) as worker:
        program = await worker.load(model)
        for _ in range(3):
            with worker.slot(program, 1) as slot:
                await worker.run(slot)
        assert len(threads_of(worker.pid)) == THREADS_OF_OURS, threads_of(worker.pid)
    assert list(home.rglob("*")) == []
