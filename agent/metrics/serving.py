"""Metrics beside the service: on its event loop, without a thread of their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.control_socket import listening
from agent.histogram import Histogram
from agent.metrics import lag
from agent.metrics.page import CONTENT_TYPE, Page
from agent.metrics.responder import HEAD_MAX_BYTES, Responder
from agent.metrics.subjects import Subjects
from agent.settings import MetricsSettings


@asynccontextmanager
async def serving(settings: MetricsSettings, subjects: Subjects) -> AsyncIterator[None]:
    """Answer scrapes while the block runs; raises OSError or ControlSocketTakenError where nobody can listen."""
    lateness = Histogram(lag.BOUNDS_S)
    page = Page(subjects, lateness)
    on_socket = isinstance(settings.address, Path)
    responder = Responder(page.text, CONTENT_TYPE, guarded=not on_socket)
    server = await _listen(settings, responder)
    looking = asyncio.get_running_loop().create_task(lag.measure(lateness), name="loop-lag")
    try:
        yield
    finally:
        looking.cancel()
        server.close()
        await responder.close()
        await asyncio.wait([looking])
        if isinstance(settings.address, Path):
            settings.address.unlink(missing_ok=True)


async def _listen(settings: MetricsSettings, responder: Responder) -> asyncio.Server:
    match settings.address:
        case Path() as path:
            bound = listening(path, settings.group, "metrics.listen")
            return await asyncio.start_unix_server(responder.connected, sock=bound, limit=HEAD_MAX_BYTES)
        case (host, port):
            return await asyncio.start_server(responder.connected, host, port, limit=HEAD_MAX_BYTES)
    raise ValueError("metrics.listen is empty")
