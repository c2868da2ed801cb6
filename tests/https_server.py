"""An https server that does as it is told: files with ranges and ETags, and whatever a broken or hostile one does."""

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ETAG = '"v1"'


@dataclass(frozen=True)
class Request:
    target: str
    headers: Mapping[str, str]
    """By names in lower case."""

    @property
    def begin(self) -> int:
        """The first byte that is asked for."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        return int(found[1]) if found else 0


Answer = Iterator[bytes]
"""What goes out piece by piece; then the connection is closed."""
Behaviour = Callable[[Request], Answer]


def head(status: str, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def file(body: bytes, *, etag: str | None = ETAG, stop_after: int | None = None) -> Behaviour:
    """A well-behaved file server; with `stop_after` it closes after so many bytes of each body."""

    def answer(request: Request) -> Answer:
        version = [f"ETag: {etag}"] if etag else []
        begin = request.begin if request.headers.get("if-range") == etag else 0
        rest = body[begin:]
        if begin:
            part = f"Content-Range: bytes {begin}-{len(body) - 1}/{len(body)}"
            yield head("206 Partial Content", part, f"Content-Length: {len(rest)}", *version)
        else:
            yield head("200 OK", f"Content-Length: {len(rest)}", *version)
        yield rest if stop_after is None else rest[:stop_after]

    return answer


def says(status: str, *lines: str, body: bytes = b"") -> Behaviour:
    """Always the same head, then the body as it is."""

    def answer(_: Request) -> Answer:
        yield head(status, *lines)
        yield body

    return answer


def redirects(location: str, status: str = "302 Found") -> Behaviour:
    return says(status, f"Location: {location}", "Content-Length: 0")


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """The first request gets the first, the last stays."""
    left = list(behaviours)

    def answer(request: Request) -> Answer:
        return (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer


@dataclass
class HttpsServer:
    """On 127.0.0.1, until the block ends; `behave` by path, or 404."""

    certificate: tuple[Path, Path]
    behave: dict[str, Behaviour] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    connections: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)
    _open: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*self.certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):  # closed already
                socket.socket.shutdown(each, socket.SHUT_RDWR)  # wakes its thread
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}{path}"

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, name="https-server")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:  # the other side may hang up at any time
            tls = self._context.wrap_socket(peer, server_side=True)
            self._open.append(tls)
            with tls:
                request = _read(tls)
                if request is None:
                    return
                self.requests.append(request)
                for piece in self.behave.get(request.target.partition("?")[0], says("404 Not Found"))(
                    request
                ):
                    tls.sendall(piece)


def _read(tls: ssl.SSLSocket) -> Request | None:
    received = b""
    while b"\r\n\r\n" not in received:
        more = tls.recv(4096)
        if not more:
            return None
        received += more
    first, *lines = received.decode().split("\r\n\r\n")[0].split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Request(first.split()[1], headers)
