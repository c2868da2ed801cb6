import asyncio
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fetching import QUICK
from https_server import Answer, Behaviour, HttpsServer, Request, file, in_turn, says

from agent.fetch.file_body import CHUNK_BYTES
from agent.fetch.network import Network
from agent.model_files import NotCached
from agent.models import ModelCache, ModelUnavailableError
from agent.protocol.reasons import Reason
from agent.settings import ModelSettings
from benchmarks.certificates import Authority


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


def cache_of(
    source: Path | str, cache_dir: Path, cache_max_bytes: int = 1_000_000, **more: Any
) -> ModelCache:
    url = source if isinstance(source, str) else source.as_uri()
    settings = ModelSettings(source=url, cache_dir=cache_dir, cache_max_bytes=cache_max_bytes, **more)
    return ModelCache(settings, Network(patience=QUICK))


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


async def test_the_least_recently_used_go_first_and_the_bound_holds(source: Path, cache_dir: Path) -> None:
    first, second, third = (publish(source, bytes([n]) * 400) for n in range(3))
    cache = cache_of(source, cache_dir, 1_000)
    for sha256 in (first, second, first):
        await cache.fetch(sha256)
    await cache.fetch(third)
    assert files(cache_dir) == {first, third}
    assert cache.resident() == [first, third]


async def test_what_was_used_last_is_known_after_a_restart(source: Path, cache_dir: Path) -> None:
    first, second, third = (publish(source, bytes([n]) * 400) for n in range(3))
    cache = cache_of(source, cache_dir, 1_000)
    for age, sha256 in enumerate((second, first)):
        os.utime(await cache.fetch(sha256), (age, age))
    cache = cache_of(source, cache_dir, 1_000)
    assert not cache.has(first)  # not before its bytes have been looked at again
    await cache.fetch(third)
    assert files(cache_dir) == {first, third}


async def test_a_model_larger_than_the_cache_drives_nothing_out(source: Path, cache_dir: Path) -> None:
    small, large = publish(source, b"a" * 400), publish(source, b"b" * 1_001)
    cache = cache_of(source, cache_dir, 1_000)
    await cache.fetch(small)
    error = await refused(cache, large)
    assert error.reason is Reason.TOO_LARGE
    assert "raise models.max_bytes and models.cache_max_bytes" in error.text
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
    cache = cache_of(source, cache_dir, 2 * size)
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


# Several at once


async def test_a_model_that_is_being_opened_makes_room_for_no_other(source: Path, cache_dir: Path) -> None:
    first, second = (publish(source, bytes([n]) * 600) for n in range(2))
    cache = cache_of(source, cache_dir, 1_000)
    await cache.fetch(first)
    with cache.held(first) as path:
        fetching = asyncio.ensure_future(cache.fetch(second))
        await until(lambda: len(files(cache_dir)) == 2)  # it waits, with an empty file
        assert path.exists()
        assert not fetching.done()
    await fetching
    assert files(cache_dir) == {second}
    with pytest.raises(NotCached), cache.held(first):
        pass


async def test_the_bound_holds_for_models_that_arrive_at_once(source: Path, cache_dir: Path) -> None:
    models = [publish(source, os.urandom(400)) for _ in range(8)]
    cache = cache_of(source, cache_dir, 1_000)
    await asyncio.gather(*(cache.fetch(sha256) for sha256 in models))
    assert len(files(cache_dir)) == 2
    assert files(cache_dir) == set(cache.resident())


# Over https


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Iterator[HttpsServer]:
    with HttpsServer(authority.issue("server")) as server:
        yield server


def offer(server: HttpsServer, content: bytes, behave: Behaviour | None = None) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    server.behave[f"/models/{sha256}"] = behave or file(content)
    return sha256


@pytest.fixture
def cache(server: HttpsServer, authority: Authority, cache_dir: Path) -> ModelCache:
    url = server.url("/models")
    return cache_of(url, cache_dir, 600_000, private_networks=True, ca_file=authority.path, max_bytes=500_000)


async def test_a_model_comes_over_https_by_its_hash(server: HttpsServer, cache: ModelCache) -> None:
    sha256 = offer(server, b"weights")
    path = await cache.fetch(sha256)
    assert path.read_bytes() == b"weights"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert await cache.fetch(sha256) == path
    assert server.connections == 1


@pytest.mark.parametrize(
    ("behave", "reason", "text"),
    [
        (says("404 Not Found"), Reason.MODEL_NOT_FOUND, "answered 404"),
        (says("200 OK", "Content-Length: 4", body=b"bomb"), Reason.MODEL_HASH, "SHA-256"),
        (says("200 OK", body=b"weights"), Reason.MODEL_NOT_FOUND, "no Content-Length"),
        (says("200 OK", "Content-Length: 500001"), Reason.TOO_LARGE, "raise models.max_bytes"),
        (says("503 Busy"), Reason.LINK_LOST, "answered 503; given up after 3 tries"),
    ],
)
async def test_what_cannot_be_had_says_why_and_leaves_nothing(
    server: HttpsServer, cache: ModelCache, behave: Behaviour, reason: Reason, text: str
) -> None:
    error = await refused(cache, offer(server, b"weights", behave))
    assert error.reason is reason
    assert text in error.text
    assert cache_files(cache) == []


def stalls(server: HttpsServer, content: bytes, sent: int) -> Behaviour:
    def answer(request: Request) -> Answer:
        yield next(file(content)(request))
        yield content[:sent]
        server.stopping.wait()

    return answer


async def test_a_slow_model_keeps_no_other_waiting(server: HttpsServer, cache: ModelCache) -> None:
    slow = offer(server, b"s" * 100_000, stalls(server, b"s" * 100_000, 10))
    quick = offer(server, b"quick")
    waiting = asyncio.ensure_future(cache.fetch(slow))
    await until(lambda: server.requests)
    assert (await cache.fetch(quick)).read_bytes() == b"quick"
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_one_of_two_that_wait_may_leave(server: HttpsServer, cache: ModelCache) -> None:
    content, go_on = b"w" * 100_000, threading.Event()

    def answer(request: Request) -> Answer:
        yield next(file(content)(request))
        go_on.wait(20)
        yield content

    sha256 = offer(server, content, answer)
    leaving, staying = (asyncio.ensure_future(cache.fetch(sha256)) for _ in range(2))
    await until(lambda: server.requests)
    leaving.cancel()
    await asyncio.wait([leaving])
    go_on.set()
    assert (await staying).read_bytes() == content
    assert server.connections == 1


async def test_when_the_last_one_leaves_the_fetch_ends_and_is_gone_on_with_later(
    server: HttpsServer, cache: ModelCache
) -> None:
    content = os.urandom(300_000)
    sha256 = offer(server, content, in_turn(stalls(server, content, 200_000), file(content)))
    leaving = asyncio.ensure_future(cache.fetch(sha256))
    await until(lambda: any(path.stat().st_size == 200_000 for path in cache_files(cache)))
    leaving.cancel()
    await asyncio.wait([leaving])
    await until(lambda: not fetching_threads())
    assert server.connections == 1
    assert not cache.has(sha256)
    assert (await cache.fetch(sha256)).read_bytes() == content
    assert server.requests[-1].begin == 200_000
    assert [path.name for path in cache_files(cache)] == [sha256]


async def test_what_is_left_of_a_fetch_makes_room_first(server: HttpsServer, cache: ModelCache) -> None:
    kept = offer(server, b"k" * 100_000)
    await cache.fetch(kept)
    half = os.urandom(400_000)
    error = await refused(cache, offer(server, half, file(half, stop_after=1000)))
    assert error.reason is Reason.LINK_LOST
    other = offer(server, b"o" * 500_000)
    await cache.fetch(other)
    assert sorted(path.name for path in cache_files(cache)) == sorted([kept, other])


async def test_no_name_but_a_hash_becomes_a_path(source: Path, cache_dir: Path, tmp_path: Path) -> None:
    """Whatever the wire let through: what lies elsewhere is neither read nor removed."""
    other = tmp_path / "passwd"
    other.write_text("the car's")
    for name in (str(other), "../passwd", "a" * 63, "A" * 64, "a" * 64 + "\n"):
        error = await refused(cache_of(source, cache_dir), name)
        assert error.reason is Reason.MODEL_NOT_FOUND
        assert "is no SHA-256" in error.text
    assert other.read_text() == "the car's"


def cache_files(cache: ModelCache) -> list[Path]:
    folder = cache._settings.cache_dir
    return list(folder.iterdir()) if folder.exists() else []


def fetching_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "model"]


async def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
