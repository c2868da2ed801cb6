import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

from agent.link.options import LinkOptions


async def dial(options: LinkOptions) -> socket.socket:
    """A connected, non-blocking socket, after the TLS handshake if TLS is on; never blocks the loop.

    Raises OSError (ssl.SSLError and an unreadable certificate file are ones).
    """
    context = _tls_context(options)
    # asyncio knows how to race IPv6 against IPv4 (RFC 8305) but keeps its socket: take a duplicate of it.
    transport, _ = await asyncio.get_running_loop().create_connection(
        asyncio.Protocol, options.host, options.port, happy_eyeballs_delay=0.25
    )
    sock: socket.socket = transport.get_extra_info("socket").dup()
    transport.abort()
    sock.setblocking(False)
    # Without it the kernel holds a small packet back until the last one is acknowledged: 88 ms a round trip.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return sock
    return await _secure(sock, context, options.host)


def _tls_context(options: LinkOptions) -> ssl.SSLContext | None:
    if options.ca_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
        if options.cert_file is not None:
            context.load_cert_chain(options.cert_file, options.key_file)
    except OSError as error:  # names no file
        files = [str(file) for file in (options.ca_file, options.cert_file, options.key_file) if file]
        raise OSError(f"TLS with {', '.join(files)}: {error}") from error
    return context


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
