"""What is owed to the fleet is said again after every reconnect, until the fleet has it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from agent.reports import Reports
from agent.store import Ledger, Store, StoreClosed, StoreFailed, TaskRow

PAGE = 32
"""Results under way at a time while old ones are repeated, so that new work is not starved."""
PERIOD_S = 60.0


@dataclass(slots=True)
class Outbox:
    """Repeats unsettled results and endings that nobody acknowledged."""

    store: Store
    reports: Reports
    on_error: Callable[[BaseException], None]
    _again: set[asyncio.Task[None]] = field(default_factory=set)
    _repeating: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Send everything that is owed, oldest first, and each minute again what was owed a minute ago already.

        A fleet that is killed between its PUBACK and `settled` is told again, though the link was never down. Until
        `stop`, or the link goes down; a second time it begins anew.
        """
        self.stop()
        self._repeating = asyncio.get_running_loop().create_task(self._repeat(), name="outbox")

    def stop(self) -> None:
        """Repeat nothing more."""
        if self._repeating is not None:
            self._repeating.cancel()

    def answer_again(self, row: TaskRow) -> None:
        """Send what a task is owed, and its end if it has one: the fleet has asked once more, so it has not got it."""
        again = asyncio.get_running_loop().create_task(self._answer_again(row), name="again")
        self._again.add(again)
        again.add_done_callback(self._again.discard)

    async def _repeat(self) -> None:
        try:
            before_key = await self._newest_key()
            while await self._send_up_to(before_key):
                before_key = await self._newest_key()
                await asyncio.sleep(PERIOD_S)
        except StoreClosed:
            return  # the next start goes on
        except StoreFailed as error:
            self.on_error(error)

    async def _answer_again(self, row: TaskRow) -> None:
        try:
            for key in await self.store.run(lambda ledger: ledger.unsettled_of(row.id, row.attempt)):
                body = await self.store.run(partial(Ledger.result_body, key=key))
                answer = self.reports.result(body) if body is not None else None
                if answer is not None:
                    await asyncio.wait([answer])
        except StoreClosed:
            return
        except StoreFailed as error:
            self.on_error(error)
        if not row.state.is_open:
            self.reports.ended_before(row)

    async def _newest_key(self) -> int:
        return await self.store.run(lambda ledger: ledger.newest_result())

    async def _send_up_to(self, newest_key: int) -> bool:
        """Send what is owed up to this result; False when the link went down meanwhile."""
        for row in await self.store.run(lambda ledger: ledger.untold()):
            await self._tell(row)
        after_key = 0
        while page := await self.store.run(partial(_page, after_key=after_key)):
            after_key = page[-1][0]
            answers = [self.reports.result(body) for key, body in page if key <= newest_key]
            sent = [answer for answer in answers if answer is not None]
            # A link that is lost calls for the next round.
            await asyncio.gather(*sent, return_exceptions=True)
            if len(sent) < len(answers):
                return False
            if after_key >= newest_key:
                break
        return True

    async def _tell(self, row: TaskRow) -> None:
        answer = self.reports.ended_before(row)
        if answer is None:
            return
        (outcome,) = await asyncio.gather(answer, return_exceptions=True)
        if outcome is None:
            await self.store.owe(lambda ledger: ledger.told(row.id, row.attempt), (row.id, row.attempt))


def _page(ledger: Ledger, after_key: int) -> list[tuple[int, bytes]]:
    owed = [(result.key, ledger.result_body(result.key)) for result in ledger.unsettled(after_key, PAGE)]
    return [(key, body) for key, body in owed if body is not None]
