"""The text that Prometheus reads."""

import asyncio
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from agent.histogram import Histogram
from agent.metrics.families import families
from agent.metrics.subjects import Subjects
from agent.store import Counts, StoreFailed

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
STORE_S: Final = 1.0
"""How long the store may take to say how much it holds: a disk that hangs is to be seen, not to be waited for."""
FRESH_S: Final = 0.2
"""For so long a page is good: whoever asks more often does not keep the event loop busy."""


class Page(Collector):
    """All metrics of the agent, and those of its process that every exporter has."""

    def __init__(self, subjects: Subjects, lag: Histogram) -> None:
        self._subjects = subjects
        self._lag = lag
        self._counts: Counts | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._making = asyncio.Lock()
        self._text = b""
        self._old_at_s = 0.0

    def collect(self) -> Iterator[Metric]:
        """Every family, read now; called by the registry."""
        return families(self._subjects, self._counts, self._lag)

    async def text(self) -> bytes:
        """The metrics as they are now, or were a moment ago."""
        loop = asyncio.get_running_loop()
        async with self._making:
            if loop.time() >= self._old_at_s:
                self._counts = await self._counted()
                self._text = generate_latest(self._registry)
                self._old_at_s = loop.time() + FRESH_S
        return self._text

    async def _counted(self) -> Counts | None:
        try:
            async with asyncio.timeout(STORE_S):
                return await self._subjects.portrait.store.run(lambda ledger: ledger.counts())
        except (TimeoutError, StoreFailed):
            return None
