"""The rows of one task as the application gets them: each once, and then the end."""

import asyncio
from dataclasses import dataclass

from agent.protocol.reasons import Reason, Refused
from fleet.answer import Rows, check_alike
from fleet.coverage import Coverage


class Delivery:
    """Rows `[begin, end)` of a task, in the pieces in which they came."""

    def __init__(self, begin: int, end: int) -> None:
        self.coverage = Coverage(begin, end)
        self.pieces: list[Rows] = []
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether no more will come."""
        return self._ended.done()

    async def until_ended(self) -> None:
        """Wait for the end, and raise the error that it was."""
        await asyncio.shield(self._ended)

    async def more_than(self, pieces: int) -> bool:
        """Wait for a further piece; False when there will be none. Raises the error that was the end."""
        while len(self.pieces) <= pieces:
            if self._ended.done():
                self._ended.result()
                return False
            if self._news is None:
                self._news = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._news)
        return True

    def take(self, rows: Rows) -> bool:
        """Take the rows that are still missing; whether there were any, the others are duplicates.

        Raises `Refused` (102) for rows that were not asked for, or that are unlike those before them.
        """
        begin, end = self.coverage.begin, self.coverage.end
        if not begin <= rows.begin < rows.end <= end:
            text = f"rows [{rows.begin}, {rows.end}) were not asked for: [{begin}, {end}) were"
            raise Refused(Reason.BAD_TENSOR, text)
        if self.pieces:
            check_alike(self.pieces[0], rows)
        taken = self.coverage.take(rows.begin, rows.end)
        self.pieces.extend(rows.cut(*part) for part in taken)
        self._tell()
        return bool(taken)

    def end(self, error: Exception | None) -> None:
        """Say that no more will come, and why."""
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)
            self._ended.exception()  # who reads the stream need not ask for the answer as well
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        self._news = None


@dataclass(slots=True)
class Stream:
    """The pieces of a delivery, for `async for`."""

    delivery: Delivery
    seen: int = 0

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Rows:
        if not await self.delivery.more_than(self.seen):
            raise StopAsyncIteration
        self.seen += 1
        return self.delivery.pieces[self.seen - 1]
