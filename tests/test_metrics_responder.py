"""Whoever can reach the page of metrics gets this page, within bounds, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from scraping import REQUEST, answered
from wire_fleet import WITHIN_S

from agent.metrics import responder
from agent.metrics.responder import CONNECTIONS_MAX, HEAD_MAX_BYTES, Responder

BODY = b"parkwatt_link_up 1.0\n"


async def page() -> bytes:
    return BODY


@asynccontextmanager
async def serving(
    folder: Path, body: Callable[[], Awaitable[bytes]] = page, *, guarded: bool = True
) -> AsyncIterator[Path]:
    here = Responder(body, "text/plain", guarded=guarded)
    path = folder / "metrics.sock"
    server = await asyncio.start_unix_server(here.connected, path, limit=HEAD_MAX_BYTES)
    try:
        yield path
    finally:
        server.close()
        await here.close()


async def test_the_page_is_served_whole_and_the_connection_ends(tmp_path: Path) -> None:
    async with serving(tmp_path) as where:
        status, fields, body = await answered(where)
        assert (status, body, fields["Content-Length"]) == (200, BODY, str(len(BODY)))
        status, fields, body = await answered(where, REQUEST.replace(b"GET", b"HEAD"))
        assert (status, body, fields["Content-Length"]) == (200, b"", str(len(BODY)))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics?a=1 HTTP/1.0\r\n\r\n", 200),
        (b"GET /metrics/../agent.toml HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        (b"GET /metrics HTTP/2\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 2 * HEAD_MAX_BYTES + b"\r\n\r\n", 431),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 2 * HEAD_MAX_BYTES, 431),
        (b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9464\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nhost: [::1]:9464\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: LOCALHOST\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.1\r\nHost: car.evil.example\r\n\r\n", 421),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 421),
        (b"GET /metrics HTTP/1.1\r\nHost: \xff\r\n\r\n", 421),
    ],
)
async def test_every_other_request_has_its_answer(tmp_path: Path, request_: bytes, status: int) -> None:
    async with serving(tmp_path) as where:
        assert (await answered(where, request_))[0] == status
        assert (await answered(where))[0] == 200


async def test_a_unix_socket_may_be_called_as_anybody_likes(tmp_path: Path) -> None:
    async with serving(tmp_path, guarded=False) as where:
        assert (await answered(where, b"GET /metrics HTTP/1.1\r\nHost: parkwatt\r\n\r\n"))[0] == 200


async def test_who_says_nothing_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responder, "ANSWER_S", 0.05)
    async with serving(tmp_path) as where:
        assert await answered(where, b"GET /metr") == (0, {}, b"")


async def test_one_client_too_many_is_hung_up_on_and_room_comes_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as where:
        silent = [await asyncio.open_unix_connection(where) for _ in range(CONNECTIONS_MAX)]
        assert await answered(where) == (0, {}, b"")
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(WITHIN_S):
            while (await answered(where))[0] != 200:
                await asyncio.sleep(0.01)


async def test_a_client_that_does_not_read_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def long() -> bytes:
        return b"x" * 10_000_000

    monkeypatch.setattr(responder, "ANSWER_S", 0.2)
    async with serving(tmp_path, long) as where:
        _, writer = await asyncio.open_unix_connection(where, limit=1)
        writer.write(REQUEST)
        status, _, body = await answered(where)
        assert (status, len(body)) == (200, 10_000_000)
        writer.close()
        await writer.wait_closed()


async def test_leaving_hangs_up_on_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def never() -> bytes:
        asked.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    monkeypatch.setattr(responder, "ANSWER_S", 10 * WITHIN_S)
    async with asyncio.timeout(WITHIN_S):
        async with serving(tmp_path, never) as where:
            waiting = asyncio.create_task(answered(where))
            await asked.wait()
        assert await waiting == (0, {}, b"")
