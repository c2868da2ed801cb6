"""The peer: aiomqtt alone, a requester here and an echo in a process of its own, nothing durable."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence

import aiomqtt

NO_DELAY = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
"""Without it the peer would be far slower: a small write waits for the acknowledgement of the one before."""


def client(port: int, tls: Sequence[str] = ()) -> aiomqtt.Client:
    """A client with the settings that make it fastest. `tls`: files of the authority, the certificate and its key."""
    return aiomqtt.Client(
        "127.0.0.1",
        port,
        tls_params=aiomqtt.TLSParameters(ca_certs=tls[0], certfile=tls[1], keyfile=tls[2]) if tls else None,
        protocol=aiomqtt.ProtocolVersion.V5,
        socket_options=NO_DELAY,
        max_inflight_messages=100,
    )


async def echo(port: int, tls: Sequence[str]) -> None:
    """Answer every request with its own bytes, for ever."""
    async with client(port, tls) as link:
        link.pending_calls_threshold = 1_000
        await link.subscribe("bare/request", qos=1)
        await link.publish("bare/ready", b"", qos=1)
        async with asyncio.TaskGroup() as tasks:
            async for message in link.messages:
                tasks.create_task(link.publish("bare/response", message.payload, qos=1))


async def rate(
    port: int, requests: int, outstanding: int, payload_bytes: int, tls: Sequence[str] = ()
) -> float:
    """Requests answered per second with `outstanding` under way."""
    async with client(port, tls) as link:
        link.pending_calls_threshold = 1_000
        await link.subscribe("bare/response", qos=1)
        await link.subscribe("bare/ready", qos=1)
        peer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.bare_mqtt", str(port), *tls)
        )
        try:
            messages = aiter(link.messages)
            await anext(messages)  # the echo is ready
            return await _exchange(link, messages, requests, outstanding, bytes(payload_bytes))
        finally:
            peer.kill()
            await peer.wait()


async def _exchange(
    link: aiomqtt.Client,
    messages: AsyncIterator[aiomqtt.Message],
    requests: int,
    outstanding: int,
    payload: bytes,
) -> float:
    begun_s = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(requests + outstanding):
            if number >= outstanding:
                await anext(messages)
            if number < requests:
                tasks.create_task(link.publish("bare/request", payload, qos=1))
    return requests / (time.perf_counter() - begun_s)


if __name__ == "__main__":
    asyncio.run(echo(int(sys.argv[1]), sys.argv[2:]))
