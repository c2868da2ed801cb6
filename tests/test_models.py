import asyncio
import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.models import CHUNK_BYTES, ModelCache, ModelUnavailableError
from agent.protocol.reasons import Reason


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source of models"
    folder.mkdir()
    return folder


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "var/cache"


def publish(source: Path, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    (source / sha256).write_bytes(content)
    return sha256


def cache_of(source: Path, cache_dir: Path, max_bytes: int = 1_000_000) -> ModelCache:
    return ModelCache(source.as_uri(), cache_dir, max_bytes)


def files(cache_dir: Path) -> set[str]:
    return {path.name for path in cache_dir.iterdir()}


async def refused(cache: ModelCache, sha256: str) -> ModelUnavailableError:
    with pytest.raises(ModelUnavailableError) as error:
        await cache.fetch(sha256)
    return error.value


async def test_a_model_is_copied_once_and_read_only(source: Path, cache_dir: Path) -> None:
    sha256 = publish(source, b"weights")
    cache = cache_of(source, cache_dir)
    path = await cache.fetch(sha256)
    assert path.read_bytes() == b"weights"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    (source / sha256).unlink()
    assert await cache.fetch(sha256) == path
    assert cache.resident() == [sha256]


async def test_what_happens_to_the_source_later_does_not_reach_the_worker(
    source: Path, cache_dir: Path
) -> None:
    sha256 = publish(source, b"weights")
    path = await cache_of(source, cache_dir).fetch(sha256)
    with (source / sha256).open("r+b") as file:
        file.write(b"WEIGHTS")
    assert path.read_bytes() == b"weights"
    assert not path.samefile(source / sha256)


async def test_other_bytes_under_that_name_are_refused_and_leave_nothing(
    source: Path, cache_dir: Path
) -> None:
    sha256 = publish(source, b"weights")
    (source / sha256).write_bytes(b"bomb")
    error = await refused(cache_of(source, cache_dir), sha256)
    assert error.reason is Reason.MODEL_HASH
    assert files(cache_dir) == set()


def absent(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("become", [absent, folder, fifo])
async def test_a_model_that_is_not_there_is_said_to_be_missing(
    source: Path, cache_dir: Path, become: Callable[[Path], None]
) -> None:
    sha256 = publish(source, b"weights")
    become(source / sha256)
    error = await refused(cache_of(source, cache_dir), sha256)
    assert error.reason is Reason.MODEL_NOT_FOUND
    assert sha256 in error.text


async def test_https_is_refused_with_what_to_do(cache_dir: Path) -> None:
    error = await refused(ModelCache("https://models.example/x", cache_dir, 1_000), "0" * 64)
    assert error.reason is Reason.MODEL_NOT_FOUND
    assert "give a file:/// folder" in error.text


async def test_the_least_recently_used_go_first_and_the_bound_holds(source: Path, cache_dir: Path) -> None:
    first, second, third = (publish(source, bytes([n]) * 400) for n in range(3))
    cache = cache_of(source, cache_dir, max_bytes=1_000)
    for age, sha256 in enumerate((first, second)):
        os.utime(await cache.fetch(sha256), (age, age))
    await cache.fetch(first)
    await cache.fetch(third)
    assert files(cache_dir) == {first, third}
    assert cache.resident() == [first, third]


async def test_a_model_larger_than_the_cache_drives_nothing_out(source: Path, cache_dir: Path) -> None:
    small, large = publish(source, b"a" * 400), publish(source, b"b" * 1_001)
    cache = cache_of(source, cache_dir, max_bytes=1_000)
    await cache.fetch(small)
    error = await refused(cache, large)
    assert error.reason is Reason.TOO_LARGE
    assert "raise models.cache_max_bytes" in error.text
    assert files(cache_dir) == {small}


async def test_a_file_that_rotted_while_the_agent_was_off_is_fetched_again(
    source: Path, cache_dir: Path
) -> None:
    sha256 = publish(source, b"weights")
    path = await cache_of(source, cache_dir).fetch(sha256)
    path.chmod(0o600)
    path.write_bytes(b"wei")
    path = await cache_of(source, cache_dir).fetch(sha256)
    assert path.read_bytes() == b"weights"


async def test_requests_for_one_model_at_once_read_the_source_once(source: Path, cache_dir: Path) -> None:
    size = 16 * CHUNK_BYTES
    sha256 = publish(source, os.urandom(size))
    cache = cache_of(source, cache_dir, max_bytes=2 * size)
    before = bytes_read()
    paths = await asyncio.gather(*(cache.fetch(sha256) for _ in range(8)))
    assert bytes_read() - before < 1.5 * size
    assert len(set(paths)) == 1


def bytes_read() -> int:
    """By this process so far (proc(5), /proc/pid/io)."""
    return int(Path("/proc/self/io").read_text().split()[1])


async def test_what_a_killed_agent_was_copying_is_cleared_away(source: Path, cache_dir: Path) -> None:
    cache_dir.mkdir(parents=True)
    (cache_dir / "tmpabc.part").write_bytes(b"half")
    sha256 = publish(source, b"weights")
    await cache_of(source, cache_dir).fetch(sha256)
    assert files(cache_dir) == {sha256}


async def test_a_cache_that_cannot_be_written_is_the_vehicles_fault(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    error = await refused(cache_of(source, tmp_path / "file/cache"), publish(source, b"weights"))
    assert error.reason is Reason.STORE_FULL
    assert "models.cache_dir" in error.text


async def test_a_fetch_that_nobody_waits_for_stops_and_leaves_nothing(source: Path, cache_dir: Path) -> None:
    size = 600 * CHUNK_BYTES
    sha256 = "0" * 64
    with (source / sha256).open("wb") as file:
        file.truncate(size)  # a hole: costs no disk, and hashing it takes long enough to be left
    fetching = asyncio.create_task(cache_of(source, cache_dir, size).fetch(sha256))
    await until(lambda: cache_dir.exists() and any(path.stat().st_size for path in cache_dir.iterdir()))
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    await until(lambda: files(cache_dir) == set())


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
