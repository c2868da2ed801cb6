"""Messages that could not be taken for anything: counted by reason, the newest kept, for people to look at.

They cost memory that does not grow and a write now and then: what came in the last seconds before a crash is lost.
Tasks that are refused by a rule are none of them: those are answered.
"""

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from agent.protocol.reasons import Refused
from agent.reports import utc_now
from agent.store import DeadLetter, Store, StoreClosed
from agent.store.dead_letters import KEPT

WRITE_EVERY_S: Final = 10.0
HEAD_BYTES: Final = 256


class DeadLetters:
    """What is known of them, over restarts. Everything runs on the event loop.

    `counts` are messages by reason code since the store was made, `newest` the last of them, oldest first.
    """

    def __init__(self, store: Store, on_error: Callable[[BaseException], None]) -> None:
        self.counts: Counter[int] = Counter()
        self.newest: deque[DeadLetter] = deque(maxlen=KEPT)
        self._store = store
        self._on_error = on_error
        self._unwritten: deque[DeadLetter] = deque(maxlen=KEPT)
        self._uncounted: Counter[int] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._under_way = False

    async def restore(self) -> None:
        """Take up what is on disk."""
        letters, counts = await self._store.run(
            lambda ledger: (ledger.dead_letters.newest(), ledger.dead_letters.counts())
        )
        self.newest.extend(letters)
        self.counts.update(counts)

    def bury(self, topic: str, payload: bytes, refused: Refused) -> None:
        """Remember a message that came on `topic` (its last level) and why it was not taken."""
        letter = DeadLetter(
            at=utc_now().timestamp(),
            topic=topic,
            reason_code=refused.reason.value,
            text=refused.text,
            size_bytes=len(payload),
            sha256=hashlib.sha256(payload).digest(),
            head=printable(payload[:HEAD_BYTES]),
        )
        self.counts[letter.reason_code] += 1
        self.newest.append(letter)
        self._uncounted[letter.reason_code] += 1
        self._unwritten.append(letter)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_EVERY_S, self.write)

    def write(self) -> None:
        """Put on disk what is not there yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._under_way or not self._uncounted:
            return
        letters, counts = tuple(self._unwritten), dict(self._uncounted)
        self._unwritten.clear()
        self._uncounted.clear()
        self._under_way = True
        writing = self._store.owe(lambda ledger: ledger.dead_letters.add(letters, counts), lane=self)
        writing.add_done_callback(self._written)

    def _written(self, done: asyncio.Future[None]) -> None:
        self._under_way = False
        if done.cancelled():
            return
        if (error := done.exception()) is not None and not isinstance(error, StoreClosed):
            self._on_error(error)


def printable(raw: bytes) -> str:
    """Bytes as ASCII that neither moves a cursor nor hides what it is."""
    return "".join(
        chr(byte)
        if 0x20 <= byte < 0x7F and byte != 0x5C
        else f"\\x{byte:02x}"  # a backslash begins an escape
        for byte in raw
    )
