"""Serves one page over HTTP/1.1, and nothing else: for Prometheus, within bounds that keep the agent out of harm."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Final

from agent.metrics.address import is_loopback

PATH: Final = "/metrics"
HEAD_MAX_BYTES: Final = 8_192
CONNECTIONS_MAX: Final = 16
ANSWER_S: Final = 5.0
"""How long a connection may take from its beginning to its end."""


class BadRequest(Exception):  # noqa: N818 - an answer to the client
    """What is answered instead of the page."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class Responder:
    """A callback for `asyncio.start_server`: one request a connection. `page` is the body, of this content type.

    `guarded`: a browser in the car can be led to a port under another name (DNS rebinding), and would let a page of
    anybody read the answer; so who calls this computer something else gets none.
    """

    def __init__(self, page: Callable[[], Awaitable[bytes]], content_type: str, *, guarded: bool) -> None:
        self._page = page
        self._content_type = content_type
        self._guarded = guarded
        self._connections: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a client; one too many is hung up on."""
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        connection = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="metrics")
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def close(self) -> None:
        """Hang up on everybody."""
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                writer.write(await self._answer(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, ConnectionError):
            pass  # the client's own fault, and it will not read an answer
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            method = await self._method(reader)
            body, status = await self._page(), HTTPStatus.OK
        except BadRequest as bad:
            method, status = "GET", bad.status
            body = f"{status.value} {status.phrase}\n".encode()
        kind = self._content_type if status is HTTPStatus.OK else "text/plain"
        lines = (
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
        )
        told = "\r\n".join(lines).encode() + b"\r\n\r\n"
        return told if method == "HEAD" else told + body

    async def _method(self, reader: asyncio.StreamReader) -> str:
        """The method of a request for the page; raises BadRequest for every other request."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from None
        except asyncio.IncompleteReadError:
            raise BadRequest(HTTPStatus.BAD_REQUEST) from None
        request, *fields = head.decode("latin-1").split("\r\n")
        match request.split(" "):
            case [method, target, "HTTP/1.1" | "HTTP/1.0"]:
                pass
            case _:
                raise BadRequest(HTTPStatus.BAD_REQUEST)
        if self._guarded and not all(is_loopback(host) for host in _hosts(fields)):
            raise BadRequest(HTTPStatus.MISDIRECTED_REQUEST)
        if target.partition("?")[0] != PATH:
            raise BadRequest(HTTPStatus.NOT_FOUND)
        if method not in {"GET", "HEAD"}:
            raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED)
        return method


def _hosts(fields: list[str]) -> Iterator[str]:
    for name, _, value in (field.partition(":") for field in fields):
        if name.strip().lower() == "host":
            yield value.strip()
