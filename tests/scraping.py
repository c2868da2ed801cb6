"""Prometheus as the agent sees it: it asks for the page and reads it with its own library's parser."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from wire_fleet import WITHIN_S

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
Where = Path | tuple[str, int]


@dataclass(frozen=True)
class Scrape:
    """One page: its text, and its samples by name and labels."""

    text: str
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]]

    def __call__(self, name: str, **labels: str) -> float:
        """The value of a sample."""
        return self.samples[name][tuple(sorted(labels.items()))]

    def total(self, name: str) -> float:
        """The sum over every label."""
        return sum(self.samples.get(name, {}).values())

    def labels(self, name: str) -> Iterator[dict[str, str]]:
        """The labels of each sample of a name."""
        return (dict(labels) for labels in self.samples.get(name, {}))


def read(text: str) -> Scrape:
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return Scrape(text, samples)


async def answered(where: Where, request: bytes = REQUEST) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields and body of one answer; 0 where there is none."""
    reader, writer = (
        await asyncio.open_unix_connection(where)
        if isinstance(where, Path)
        else await asyncio.open_connection(*where)
    )
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            await writer.drain()
        async with asyncio.timeout(WITHIN_S):
            try:
                whole = await reader.read(-1)
            except ConnectionError:
                whole = b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    if not whole:
        return 0, {}, b""
    head, _, body = whole.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    split = (field.partition(": ") for field in fields)
    return int(status.split()[1]), {name: value for name, _, value in split}, body


async def scrape(where: Where) -> Scrape:
    status, fields, body = await answered(where)
    assert status == 200
    assert fields["Content-Type"].startswith("text/plain; version=0.0.4")
    assert int(fields["Content-Length"]) == len(body)
    return read(body.decode())
