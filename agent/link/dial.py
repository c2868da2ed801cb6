import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from agent.link.options import LinkOptions


async def dial(options: LinkOptions, tls: ssl.SSLContext | None) -> socket.socket:
    """A connected, non-blocking socket, after the TLS handshake if TLS is on; never blocks the loop.

    Raises OSError (ssl.SSLError is one).
    """
    sock = await _connected(options)
    # Without it the kernel holds a small packet back until the last one is acknowledged: 88 ms a round trip.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return sock
    return await _secure(sock, tls, options.host)


async def _connected(options: LinkOptions) -> socket.socket:
    """Try every address of the host, each for its part of the time: one that drops packets hides no other."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)
    errors: list[str] = []
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(options.answer_s / len(addresses)):
                await loop.sock_connect(sock, address)
        except OSError as error:  # a time-out is one, and says nothing
            sock.close()
            errors.append(str(error) or f"no answer from {address[0]}")
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise OSError(", ".join(errors))


async def _secure(sock: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    loop = asyncio.get_running_loop()
    secure = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                await _ready(secure, loop.add_reader, loop.remove_reader)
            except ssl.SSLWantWriteError:
                await _ready(secure, loop.add_writer, loop.remove_writer)
            else:
                return secure
    except BaseException:
        secure.close()
        raise


async def _ready(sock: socket.socket, add: Callable[..., Any], remove: Callable[..., Any]) -> None:
    ready = asyncio.get_running_loop().create_future()
    add(sock, ready.set_result, None)
    try:
        await ready
    finally:
        remove(sock)
